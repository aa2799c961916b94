"""Aggregates: pure functions over the accumulators of windows, which the host keeps."""

from typing import NamedTuple

from . import columns, log
from .config import Config
from .context import Batch, _bytes
from .failure import Fatal, Retry, reason, story


class Pane(NamedTuple):
    """A window that fires, for one key."""

    #: The first microsecond of the window, since the Unix epoch.
    start: int
    #: The first microsecond behind the window.
    end: int
    #: The event key.
    key: bytes


class AggregateDriver:
    """An open aggregate."""

    def __init__(self, made, config: bytes):
        self.aggregate = made()
        fields = Config(config)
        if hasattr(made, "open"):
            self.aggregate.open(fields)
        fields._done()

    def _open(self, data: bytes):
        if not data:
            return self.aggregate.start()
        try:
            return self.aggregate.accumulator.decode(data)
        except Exception as error:
            raise Fatal(f"an accumulator cannot be read: {error}") from None

    def fold(self, accumulators, groups, times, keys, values):
        """Adds rows to their groups."""
        open_ = [self._open(data) for data in columns.rows(*accumulators)]
        rejected = []
        fold = self.aggregate.fold
        for event, group in zip(Batch(0, times, keys, values), groups):
            try:
                open_[group] = fold(open_[group], event)
            except (Retry, Fatal):
                raise
            except Exception as error:
                rejected.append((event.row, reason(error)))
                if type(error).__name__ != "Reject":
                    log.error(story(error))
        encode = self.aggregate.accumulator.encode
        return columns.column([encode(one) for one in open_]), rejected

    def merge(self, accumulators, groups, count: int):
        """Merges accumulators of a group, in order."""
        merged = [None] * count
        for data, group in zip(columns.rows(*accumulators), groups):
            one = self._open(data)
            merged[group] = one if merged[group] is None else self.aggregate.merge(merged[group], one)
        encode = self.aggregate.accumulator.encode
        return columns.column([encode(self.aggregate.start() if one is None else one) for one in merged])

    def finish(self, starts, ends, keys, accumulators):
        """Results of panes, and the pane of each."""
        values, panes = [], []
        each = zip(starts, ends, columns.rows(*keys), columns.rows(*accumulators))
        for at, (start, end, key, data) in enumerate(each):
            for value in self.aggregate.finish(Pane(start, end, key), self._open(data)) or ():
                values.append(_bytes(value))
                panes.append(at)
        return columns.column(values), panes
