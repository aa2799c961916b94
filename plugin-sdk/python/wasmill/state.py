"""State by the key of the event at hand.

A call fetches the values of its keys together, keeps them for the call, and writes what has changed
together at its end. Nothing is kept between calls: an instance can be replaced at any of them.
"""

from . import columns
from .failure import Fatal, reason

_ABSENT = object()
#: Entries that one scan brings in.
PAGE = 1024


class Shared:
    """What the spaces of one operator share: the host, and the key of the row at hand."""

    def __init__(self, host):
        self.host = host
        self.key = None
        self.spaces = []
        self.journal = []

    def begin(self, keys) -> None:
        """Starts a call over rows with these keys."""
        distinct = list(dict.fromkeys(keys))
        for space in self.spaces:
            space.load(distinct)

    def enter(self, key) -> None:
        """The row at hand changes."""
        self.key = key
        if self.journal:
            self.journal.clear()

    def undo(self) -> None:
        """Takes back what the row at hand has changed."""
        for cells, dirty, place, old, was_dirty in reversed(self.journal):
            cells[place] = old
            if not was_dirty:
                del dirty[place]
        self.journal.clear()

    def finish(self) -> None:
        """Ends a call that succeeds."""
        self.key = None
        self.journal.clear()
        for space in self.spaces:
            space.write()

    def current(self):
        """The key of the row at hand."""
        if self.key is None:
            raise RuntimeError("state and timers belong to the key of an event or a timer, and there is none here")
        return self.key


class _Space:
    def __init__(self, shared, name, codec, version, ttl, migrate):
        self._shared, self.name, self._codec, self.version, self.ttl = shared, name, codec, version, ttl
        self._migrate = migrate or {}
        self.number = len(shared.spaces)
        self._cells = {}
        self._dirty = {}
        shared.spaces.append(self)

    def _decode(self, data):
        try:
            return self._codec.decode(data)
        except Exception as error:
            raise Fatal(
                f"an entry of state space `{self.name}` cannot be read: {error}; "
                "if its type has changed, raise the version of the space"
            ) from None

    def migrate(self, from_version, keys, values):
        """Entries of an older version as this one has them, and the places of those that go."""
        turn = self._migrate.get(from_version)
        if turn is None:
            raise Fatal(
                f"state space `{self.name}` has version {self.version}, and no migration from version {from_version}"
            )
        out, dropped = [], []
        for row, (key, value) in enumerate(zip(keys, values)):
            try:
                new = turn(value)
                out.append(b"" if new is None else self._codec.encode(new))
            except Exception as error:
                raise Fatal(
                    f"an entry of state space `{self.name}`, key {key!r}, is none of version {from_version}: "
                    + reason(error)
                ) from None
            if new is None:
                dropped.append(row)
        return columns.column(out), dropped

    def _change(self, place, value) -> None:
        cells, dirty = self._cells, self._dirty
        self._shared.journal.append((cells, dirty, place, cells.get(place, _ABSENT), place in dirty))
        cells[place] = value
        dirty[place] = None

    def _fetch(self, places) -> None:
        """Brings these places in."""
        keys, subkeys = columns.column([key for key, _ in places]), columns.column([sub for _, sub in places])
        found, ends, data = self._shared.host.get_many(self.number, keys, subkeys)
        values = columns.rows(ends, data)
        for place, there, value in zip(places, columns.bits(found, len(places)), values):
            self._cells[place] = self._decode(value) if there else _ABSENT

    def write(self) -> None:
        """Writes what has changed, and forgets everything."""
        put = [(place, self._cells[place]) for place in self._dirty if self._cells[place] is not _ABSENT]
        delete = [place for place in self._dirty if self._cells[place] is _ABSENT]
        host, encode = self._shared.host, self._codec.encode
        if put:
            keys, subkeys = columns.column([p[0] for p, _ in put]), columns.column([p[1] for p, _ in put])
            host.put_many(self.number, keys, subkeys, columns.column([encode(value) for _, value in put]))
        if delete:
            host.delete_many(
                self.number, columns.column([p[0] for p in delete]), columns.column([p[1] for p in delete])
            )
        self._dirty = {}
        self._cells = {}


class Value(_Space):
    """One value per event key."""

    def load(self, keys) -> None:
        self._dirty, self._cells = {}, {}
        if keys:
            self._fetch([(key, b"") for key in keys])

    def get(self, default=None):
        """The value of the current key, or the default."""
        value = self._cells[self._shared.current(), b""]
        return default if value is _ABSENT else value

    def set(self, value) -> None:
        """Sets the value of the current key."""
        self._change((self._shared.current(), b""), value)

    def get_all(self, keys, default=None) -> list:
        """In ``batch``: the values of keys of the batch, or the default."""
        cells = self._cells
        found = [cells[key, b""] for key in keys]
        return [default if value is _ABSENT else value for value in found]

    def set_all(self, values: dict) -> None:
        """In ``batch``: sets the values of keys of the batch."""
        cells, dirty = self._cells, self._dirty
        for key, value in values.items():
            place = key, b""
            cells[place] = value
            dirty[place] = None

    def delete(self) -> None:
        """Deletes the value of the current key."""
        self._change((self._shared.current(), b""), _ABSENT)


class Map(_Space):
    """A map per event key, from sub-keys to values."""

    def __init__(self, shared, name, key_codec, codec, version, ttl, migrate):
        super().__init__(shared, name, codec, version, ttl, migrate)
        self._key = key_codec
        self._complete = set()

    def load(self, keys) -> None:
        self._dirty, self._cells, self._complete = {}, {}, set()

    def _at(self, key):
        place = (self._shared.current(), self._key.key(key))
        if place not in self._cells:
            if place[0] in self._complete:
                self._cells[place] = _ABSENT
            else:
                self._fetch([place])
        return place

    def get(self, key, default=None):
        """The value of a sub-key under the current key."""
        value = self._cells[self._at(key)]
        return default if value is _ABSENT else value

    def get_all(self, keys) -> list:
        """The values of some sub-keys, fetched together; ``None`` where there is none."""
        current = self._shared.current()
        places = [(current, self._key.key(key)) for key in keys]
        missing = [place for place in dict.fromkeys(places) if place not in self._cells]
        if missing and current not in self._complete:
            self._fetch(missing)
        found = [self._cells.get(place, _ABSENT) for place in places]
        return [None if value is _ABSENT else value for value in found]

    def set(self, key, value) -> None:
        """Sets the value of a sub-key."""
        self._change(self._at(key), value)

    def delete(self, key) -> None:
        """Deletes the value of a sub-key."""
        self._change(self._at(key), _ABSENT)

    def items(self) -> list:
        """All entries of the current key in the order of their sub-keys."""
        current = self._shared.current()
        if current not in self._complete:
            self._scan(current)
        entries = [(place[1], value) for place, value in self._cells.items() if place[0] == current]
        return [(self._key.unkey(sub), value) for sub, value in sorted(entries, key=lambda e: e[0]) if value is not _ABSENT]

    def clear(self) -> None:
        """Deletes all entries of the current key."""
        for key, _ in self.items():
            self.delete(key)

    def _scan(self, key) -> None:
        start = b""
        while True:
            (ends, data), (value_ends, values) = self._shared.host.scan(self.number, key, start, PAGE)
            subs = columns.rows(ends, data)
            for sub, value in zip(subs, columns.rows(value_ends, values)):
                # What is in memory is as new or newer.
                if (key, sub) not in self._cells:
                    self._cells[key, sub] = self._decode(value)
            if len(subs) < PAGE:
                break
            start = subs[-1] + b"\0"
        self._complete.add(key)
