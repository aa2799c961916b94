"""Runs an operator without a host, for its author's tests::

    test = Tester(Count)
    test.send("a", "x")
    assert test.values() == [b"1"]
"""

from . import columns, log
from .aggregate import AggregateDriver
from .context import Row, _bytes
from .driver import Driver



class Host:
    """State, timers, metrics and time in memory."""

    def __init__(self):
        self.entries = {}
        self.timers = {}
        self.metrics = {}
        self.watermark = 0
        self.wall = 0

    def get_many(self, space, keys, subkeys):
        found = [self.entries.get((space, k, s)) for k, s in zip(columns.rows(*keys), columns.rows(*subkeys))]
        ends, data = columns.column([value or b"" for value in found])
        there = [row for row, value in enumerate(found) if value is not None]
        return columns.bitmap(there, len(found)), ends, data

    def put_many(self, space, keys, subkeys, values):
        for key, sub, value in zip(columns.rows(*keys), columns.rows(*subkeys), columns.rows(*values)):
            self.entries[space, key, sub] = value

    def delete_many(self, space, keys, subkeys):
        for key, sub in zip(columns.rows(*keys), columns.rows(*subkeys)):
            self.entries.pop((space, key, sub), None)

    def scan(self, space, key, start, limit):
        own = sorted((s, v) for (n, k, s), v in self.entries.items() if n == space and k == key and s >= start)
        own = own[:limit]
        return columns.column([s for s, _ in own]), columns.column([v for _, v in own])

    def now(self, clock):
        return self.watermark if clock == "event" else self.wall

    def set_timers(self, clock, keys, tags, times):
        for key, tag, time in zip(columns.rows(*keys), columns.rows(*tags), times):
            self.timers[clock, key, tag] = time

    def delete_timers(self, clock, keys, tags):
        for key, tag in zip(columns.rows(*keys), columns.rows(*tags)):
            self.timers.pop((clock, key, tag), None)

    def metric(self, kind, name, value):
        if kind == "add":
            self.metrics[name] = self.metrics.get(name, 0) + value
        elif kind == "set":
            self.metrics[name] = value
        else:
            self.metrics.setdefault(name, []).append(value)


class Tester:
    """An operator with its host in its author's hands."""

    def __init__(self, made, config: bytes | str = b""):
        self._made, self._config = made, _bytes(config)
        self.host = Host()
        self.log = []
        #: What came out: ``(port, Row)``.
        self.out = []
        self._rejected = []
        self.restart()

    def restart(self) -> None:
        """A fresh instance goes on with the same state."""
        log._write = lambda level, message: self.log.append((level, message))
        self._driver = Driver(self._made, self._config, self.host, True)

    def migrate(self, space: int, from_version: int, entries) -> None:
        """Takes over what an older version has left in a space: ``(key, value)`` or ``(key, subkey, value)``."""
        entries = [tuple(map(_bytes, one if len(one) == 3 else (one[0], b"", one[1]))) for one in entries]
        keys, subkeys, values = ([one[part] for one in entries] for part in range(3))
        made, dropped = self._driver.migrate(space, from_version, columns.column(keys), columns.column(values))
        for row, (key, sub, value) in enumerate(zip(keys, subkeys, columns.rows(*made))):
            if row not in dropped:
                self.host.entries[space, key, sub] = value

    def send(self, key, value, time: int = 0, port: int = 0) -> None:
        """One event, as a call of its own."""
        self.send_all([(key, value)], time, port)

    def send_all(self, events, time: int = 0, port: int = 0) -> None:
        """Events as ``(key, value)`` in one call."""
        events = [(_bytes(key), _bytes(value)) for key, value in events]
        keys, values = [key for key, _ in events], [value for _, value in events]
        done = self._driver.process(port, [time] * len(events), columns.column(keys), columns.column(values))
        self._take(done, [(time, key, value) for key, value in events])

    def watermark(self, time: int) -> None:
        """The watermark rises: event timers fire, and the operator hears of it."""
        self.host.watermark = time
        self._fire("event", time)
        if self._driver.descriptor.watermarks:
            self._take(self._driver.on_watermark(time), [])

    def wall(self, time: int) -> None:
        """The wall clock moves on: processing timers fire."""
        self.host.wall = time
        self._fire("processing", time)

    def _fire(self, clock, now) -> None:
        while True:
            due = [(at, key, tag) for (c, key, tag), at in self.host.timers.items() if c == clock and at <= now]
            if not due:
                return
            due.sort()
            for _, key, tag in due:
                del self.host.timers[clock, key, tag]
            keys, tags = columns.column([d[1] for d in due]), columns.column([d[2] for d in due])
            done = self._driver.on_timers(clock, [d[0] for d in due], keys, tags)
            self._take(done, [(at, key, b"") for at, key, _ in due])

    def _take(self, done, given) -> None:
        emissions, rejected = done
        refused = {row for row, _ in rejected}
        self._rejected += [reason for _, reason in rejected]
        for port, (form, what) in emissions:
            for origin, row in _rows(form, what, given):
                if origin is None or origin not in refused:
                    self.out.append((port, row))

    def values(self, port: int = 0) -> list[bytes]:
        """Values that came out of a port."""
        return [row.value for at, row in self.out if at == port]

    def rejected(self) -> list[str]:
        """Why events were rejected."""
        return self._rejected


def _rows(form, what, given):
    if form == "unchanged":
        return [(at, Row(value, key, time)) for at, (time, key, value) in enumerate(given)]
    if form == "keep":
        kept = columns.bits(what, len(given))
        return [(at, Row(v, k, t)) for at, (t, k, v) in enumerate(given) if kept[at]]
    if form == "values":
        values = columns.rows(*what)
        return [(at, Row(v, k, t)) for at, ((t, k, _), v) in enumerate(zip(given, values))]
    times, keys, values, origins = what
    keys, values = columns.rows(*keys), columns.rows(*values)
    out = []
    for at, value in enumerate(values):
        origin = origins[at] if origins else None
        time, key, _ = given[origin] if origin is not None else (0, b"", b"")
        out.append((origin, Row(value, keys[at] if keys else key, times[at] if times else time)))
    return out


class WindowTester:
    """An aggregate over tumbling windows of ``size`` microseconds."""

    def __init__(self, made, config: bytes | str = b"", size: int = 60_000_000):
        log._write = lambda level, message: None
        self._driver, self._size = AggregateDriver(made, _bytes(config)), size
        self._panes = {}
        self.out = []
        self._rejected = []

    def send(self, time: int, key, value) -> None:
        """One event."""
        place = (time // self._size * self._size, _bytes(key))
        accumulators = columns.column([self._panes.get(place, b"")])
        key, value = columns.column([place[1]]), columns.column([_bytes(value)])
        folded, rejected = self._driver.fold(accumulators, [0], [time], key, value)
        if rejected:
            self._rejected += [reason for _, reason in rejected]
        else:
            self._panes[place] = self._driver.merge(folded, [0], 1)[1]

    def watermark(self, time: int) -> None:
        """Windows that end up to here fire."""
        due = sorted(place for place in self._panes if place[0] + self._size - 1 <= time)
        starts = [start for start, _ in due]
        keys = columns.column([key for _, key in due])
        accumulators = columns.column([self._panes.pop(place) for place in due])
        values, _ = self._driver.finish(starts, [start + self._size for start in starts], keys, accumulators)
        self.out += columns.rows(*values)

    def values(self) -> list[bytes]:
        """Results of windows that have fired."""
        return self.out

    def rejected(self) -> list[str]:
        """Why events were rejected."""
        return self._rejected
