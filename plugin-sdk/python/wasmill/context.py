"""Events, and what an operator acts through during a call."""

import json as _json
from typing import Any, NamedTuple

from . import columns
from .failure import Reject


class Event:
    """One event of a batch."""

    __slots__ = ("row", "port", "time", "key", "value")

    def __init__(self, row: int, port: int, time: int, key: bytes, value: bytes):
        #: Its place in the batch.
        self.row = row
        #: The input port it came in by, from 0.
        self.port = port
        #: The event time in microseconds since the Unix epoch.
        self.time = time
        #: The key; empty where the stage has none.
        self.key = key
        #: The value.
        self.value = value

    def text(self) -> str:
        """The value as text. One that is not UTF-8 is rejected."""
        try:
            return self.value.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"not UTF-8 at byte {error.start}") from None

    def json(self) -> Any:
        """The value as JSON. One that is none is rejected."""
        try:
            return _json.loads(self.value)
        except ValueError as error:
            raise Reject(f"not JSON: {error}") from None


class Timer(NamedTuple):
    """A timer that is due."""

    #: ``"event"`` or ``"processing"``.
    clock: str
    #: When it was due, in microseconds since the Unix epoch.
    time: int
    #: The event key it was set for.
    key: bytes
    #: The tag it was set with.
    tag: bytes


class Row(NamedTuple):
    """A row to emit: a key and a time of its own, another port. What is left out is the event's."""

    value: bytes | str
    key: bytes | str | None = None
    time: int | None = None
    port: int | str = 0


class Batch:
    """The events of one call, in columns. A column that was not asked for is empty."""

    def __init__(self, port: int, times, keys, values):
        self.port = port
        #: Event times in microseconds since the Unix epoch.
        self.times = times
        #: Keys as bytes.
        self.keys = columns.rows(*keys)
        #: Values as bytes.
        self.values = columns.rows(*values)
        self._count = max(len(self.times), len(self.keys), len(self.values))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Event:
        time = self.times[row] if self.times else 0
        key = self.keys[row] if self.keys else b""
        return Event(row, self.port, time, key, self.values[row] if self.values else b"")

    def __iter__(self):
        count, port = self._count, self.port
        times = self.times or [0] * count
        keys = self.keys or [b""] * count
        values = self.values or [b""] * count
        for row, (time, key, value) in enumerate(zip(times, keys, values)):
            yield Event(row, port, time, key, value)


def _bytes(data) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)


_BLANK = Event(0, 0, 0, b"", b"")


class Context:
    """Emits rows, sets timers, asks for the time. Rows leave by the first port unless told."""

    def __init__(self, setup, count: int, kind: str):
        self._shared, self._names = setup.shared, setup.outputs
        self._count, self._kind = count, kind
        # Of each port: origins, values (None where the event goes on as it was), keys, times.
        self._ports = [([], [], [], []) for _ in self._names]
        self._own = [[False, False] for _ in self._names]
        self._marks = []
        self._event = _BLANK
        self._rejected = []
        self._timers = []
        self._settled = 0
        self._now = {}

    def _port(self, port) -> int:
        at = self._names.index(port) if isinstance(port, str) and port in self._names else port
        if not isinstance(at, int) or not 0 <= at < len(self._names):
            raise ValueError(f"no output port {port!r}; this operator declares {self._names}")
        return at

    def forward(self, port: int | str = 0) -> None:
        """Lets the event out as it came in."""
        if self._kind != "input":
            raise RuntimeError("only events can be forwarded: a timer or a watermark emits rows")
        self._add(self._port(port), None, None, None)

    def emit(self, value: bytes | str, key=None, time: int | None = None, port: int | str = 0) -> None:
        """Emits a value, with the key and time of the event unless they are given."""
        self._add(self._port(port), _bytes(value), None if key is None else _bytes(key), time)

    def emit_json(self, value: Any, key=None, time: int | None = None, port: int | str = 0) -> None:
        """Emits a value as JSON."""
        self.emit(_json.dumps(value, separators=(",", ":"), ensure_ascii=False), key, time, port)

    def emit_values(self, values: list, port: int | str = 0) -> None:
        """In ``batch``: one new value for every event, in order, and nothing else by this port."""
        if len(values) != self._count:
            raise ValueError(f"{len(values)} values for {self._count} events")
        self._ports[self._port(port)] = (range(len(values)), values, None, None)

    def emit_rows(self, rows: list, values: list, port: int | str = 0) -> None:
        """In ``batch``: new values that come from the events of these rows, and nothing else by this port."""
        if len(values) != len(rows):
            raise ValueError(f"{len(values)} values for {len(rows)} rows")
        self._ports[self._port(port)] = (rows, values, None, None)

    def keep(self, rows, port: int | str = 0) -> None:
        """In ``batch``: lets the events of these rows out, in ascending order, and nothing else by this port."""
        rows = list(rows)
        self._ports[self._port(port)] = (rows, [None] * len(rows), None, None)

    def reject(self, event: Event, reason: str) -> None:
        """In ``batch``: rejects an event. Rows that come from it do not leave."""
        self._rejected.append((event.row, reason))

    def _add(self, at, value, key, time) -> None:
        origins, values, keys, times = self._ports[at]
        event = self._event
        origins.append(event.row)
        # Beside new rows a row that goes on is a row with its old value.
        values.append((event.value,) if value is None else value)
        keys.append(event.key if key is None else key)
        times.append(event.time if time is None else time)
        own = self._own[at]
        own[0] |= key is not None
        own[1] |= time is not None

    def now(self, clock: str = "event") -> int:
        """Microseconds since the Unix epoch: the watermark of the stage, or with ``"processing"`` the wall clock."""
        if clock not in self._now:
            self._now[clock] = self._shared.host.now(clock)
        return self._now[clock]

    def set_timer(self, at: int, tag: bytes | str = b"", clock: str = "event") -> None:
        """Sets a timer for the key of the event. One per clock, key and tag: setting it again moves it."""
        self._timers.append((clock, self._shared.current(), _bytes(tag), at))

    def delete_timer(self, tag: bytes | str = b"", clock: str = "event") -> None:
        """Deletes a timer of the event's key."""
        self._timers.append((clock, self._shared.current(), _bytes(tag), None))

    def _enter(self, event) -> None:
        self._event = event
        self._shared.enter(event.key)
        self._settled = len(self._timers)
        self._marks = [len(port[0]) for port in self._ports]

    def _undo(self, reason: str) -> None:
        self._shared.undo()
        del self._timers[self._settled :]
        for port, mark in zip(self._ports, self._marks):
            for part in port:
                del part[mark:]
        self._rejected.append((self._event.row, reason))

    def _send_timers(self) -> None:
        run = []
        host = self._shared.host
        for change in [*self._timers, None]:
            if run and (change is None or change[0] != run[0][0] or (change[3] is None) != (run[0][3] is None)):
                keys, tags = columns.column([c[1] for c in run]), columns.column([c[2] for c in run])
                if run[0][3] is None:
                    host.delete_timers(run[0][0], keys, tags)
                else:
                    host.set_timers(run[0][0], keys, tags, [c[3] for c in run])
                run = []
            run.append(change)

    def _emissions(self):
        """What leaves by each port, in the smallest form that says it."""
        out = []
        for at, (origins, values, keys, times) in enumerate(self._ports):
            form = self._form(origins, values, keys, times, self._own[at])
            if form is not None:
                out.append((at, form))
        return out

    def _form(self, origins, values, keys, times, own):
        count = len(origins)
        if not count:
            return None
        if keys is None:
            if values[0] is None:
                return self._kept(origins)
            if type(origins) is range:
                return ("values", columns.column(values))
            return ("rows", ([], ([], b""), columns.column(values), origins))
        if self._kind == "input" and not any(own):
            forwarded = sum(type(value) is tuple for value in values)
            if forwarded == count and all(a < b for a, b in zip(origins, origins[1:])):
                return self._kept(origins)
            if not forwarded and count == self._count and origins == list(range(count)):
                return ("values", columns.column(values))
        values = [value[0] if type(value) is tuple else value for value in values]
        return (
            "rows",
            (
                times if own[1] else [],
                columns.column(keys) if own[0] else ([], b""),
                columns.column(values),
                [] if self._kind == "watermark" else origins,
            ),
        )

    def _kept(self, rows):
        if len(rows) == self._count:
            return ("unchanged", None)
        return ("keep", columns.bitmap(rows, self._count))
