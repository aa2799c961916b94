"""Runs an operator: from the calls of the interface to the methods of the author, and back."""

from . import columns, log
from .config import Config, ConfigError
from .context import Batch, Context, Event, Row, Timer
from .failure import Fatal, Retry, reason, story
from .setup import Setup


class Descriptor:
    """What an operator says about itself."""

    def __init__(self, made, setup=None):
        self.inputs = list(getattr(made, "inputs", ("in",)))
        self.outputs = setup.outputs if setup else list(getattr(made, "outputs", ("out",)))
        self.spaces = [(s.name, s.version, s.ttl) for s in setup.shared.spaces] if setup else []
        self.columns = set(getattr(made, "columns", ("times", "keys", "values")))
        if self.spaces:
            self.columns.add("keys")
        self.watermarks = hasattr(made, "watermark")


class Driver:
    """An open operator."""

    def __init__(self, made, config: bytes, host, stateful: bool):
        self.operator = made()
        self.setup = Setup(host, getattr(made, "outputs", ("out",)))
        fields = Config(config)
        if hasattr(made, "open"):
            self.operator.open(fields, self.setup)
        fields._done()
        for what, names in (
            ("state space", [space.name for space in self.setup.shared.spaces]),
            ("output port", self.setup.outputs),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ConfigError(f"{what} `{twice}` is declared twice")
        if not stateful and (self.setup.shared.spaces or hasattr(made, "watermark") or hasattr(made, "timer")):
            raise ConfigError("state, timers and watermarks need world = \"stateful\" in plugin.toml")
        self.host, self.stateful = host, stateful
        self.descriptor = Descriptor(made, self.setup)
        self._event = getattr(self.operator, "event", None)
        self._batch = getattr(self.operator, "batch", None)

    def process(self, port: int, times, keys, values):
        """Handles rows. Returns what leaves by each port, and the rows that are rejected."""
        batch = Batch(port, times, keys, values)
        ctx = Context(self.setup, len(batch), "input")
        return self._call(ctx, lambda: self._rows(ctx, batch), batch.keys or ([b""] if len(batch) else []))

    def _rows(self, ctx, batch) -> None:
        if self._batch is not None:
            self._batch(batch, ctx)
            return
        event = self._event
        self._each(ctx, batch, lambda one: event(one, ctx))

    def _each(self, ctx, events, handle) -> None:
        for event in events:
            ctx._enter(event)
            try:
                out = handle(event)
                if out is not None:
                    _emit(ctx, out)
            except (Retry, Fatal):
                raise
            except Exception as error:
                why = reason(error)
                ctx._undo(why)
                if type(error).__name__ != "Reject":
                    log.error(story(error))

    def on_timers(self, clock: str, times, keys, tags):
        """Handles timers that are due."""
        keys, tags = columns.rows(*keys), columns.rows(*tags)
        ctx = Context(self.setup, len(times), "timers")
        events = [Event(row, 0, time, key, b"") for row, (time, key) in enumerate(zip(times, keys))]
        handle = self.operator.timer

        def work():
            self._each(ctx, events, lambda e: handle(Timer(clock, e.time, e.key, tags[e.row]), ctx))

        return self._call(ctx, work, keys)

    def on_watermark(self, watermark: int):
        """Hears that the watermark has risen."""
        ctx = Context(self.setup, 0, "watermark")
        ctx._event = Event(0, 0, watermark, b"", b"")

        def work():
            out = self.operator.watermark(watermark, ctx)
            if out is not None:
                _emit(ctx, out)

        return self._call(ctx, work, [])

    def migrate(self, space: int, from_version: int, keys, values):
        """Entries of an older schema version as the operator has them now, and the places of those that go."""
        return self.setup.shared.spaces[space].migrate(from_version, columns.rows(*keys), columns.rows(*values))

    def _call(self, ctx, work, keys):
        try:
            if self.stateful:
                ctx._shared.begin(keys)
            work()
            if self.stateful:
                ctx._shared.finish()
                ctx._send_timers()
        except (Retry, Fatal):
            self.setup.metrics.clear()
            raise
        except Exception as error:
            self.setup.metrics.clear()
            log.error(story(error))
            raise Fatal(reason(error)) from None
        for kind, name, value in self.setup.metrics:
            self.host.metric(kind, name, value)
        self.setup.metrics.clear()
        return ctx._emissions(), ctx._rejected


def _emit(ctx, out) -> None:
    if isinstance(out, (str, bytes, bytearray, Row, Event)):
        raise TypeError("a handler yields what it emits, or returns nothing; ctx.emit() emits one value")
    for item in out:
        if isinstance(item, Event):
            ctx.forward()
        elif isinstance(item, Row):
            ctx.emit(item.value, item.key, item.time, item.port)
        else:
            ctx.emit(item)
