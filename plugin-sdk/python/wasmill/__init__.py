"""Write Wasmill operators in Python.

An operator is a class with :func:`operator` on it, or a function with :func:`filter`, :func:`map`
or :func:`flat_map`; for a stage with a window, a class with :func:`aggregate`. ::

    import wasmill

    @wasmill.operator
    class Count:
        def open(self, config, setup):
            self.seen = setup.value("seen", wasmill.u64)

        def event(self, event, ctx):
            count = self.seen.get(0) + 1
            self.seen.set(count)
            yield str(count)

What a handler yields leaves by the first port: an event goes on as it came, text and bytes are new
values, :class:`Row` has more to say. ``ctx`` does the same and more.

An exception rejects the event at hand: it goes to the dead letters with the exception's text, and
what it had changed and emitted is undone. :class:`Reject` does so with words of its own.
"""

from . import log
from .aggregate import Pane
from .codec import Codec, bool_, bytes_, f64, i64, json_, text, u64
from .config import Config, ConfigError
from .context import Batch, Context, Event, Row, Timer
from .failure import Fatal, Reject, Retry
from .plugin import aggregate, filter, flat_map, map, operator
from .setup import Setup

__all__ = [
    "Batch", "Codec", "Config", "ConfigError", "Context", "Event", "Fatal", "Pane", "Reject", "Retry",
    "Row", "Setup", "Timer", "aggregate", "bool_", "bytes_", "f64", "filter", "flat_map", "i64", "json_",
    "log", "map", "operator", "text", "u64",
]
