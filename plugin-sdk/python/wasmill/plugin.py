"""Decorators: what makes a class or a function the operator of a plugin."""


def operator(made):
    """Makes a class the operator of this plugin. Its methods, all but one optional:

    ``open(self, config, setup)``, ``event(self, event, ctx)`` or ``batch(self, batch, ctx)``,
    ``timer(self, timer, ctx)``, ``watermark(self, watermark, ctx)``. Its attributes ``inputs``,
    ``outputs`` and ``columns`` name ports, and the columns it reads.
    """
    if not (hasattr(made, "event") or hasattr(made, "batch")):
        raise TypeError(f"{made.__name__} has neither event() nor batch()")
    made.__wasmill__ = "operator"
    return made


def aggregate(made):
    """Makes a class the aggregate of this plugin: ``accumulator`` (a codec), ``start(self)``,
    ``fold(self, accumulator, event)`` and ``merge(self, into, other)``, which return an accumulator,
    and ``finish(self, pane, accumulator)``, which yields results. ``open(self, config)`` is optional.
    """
    missing = [name for name in ("accumulator", "start", "fold", "merge", "finish") if not hasattr(made, name)]
    if missing:
        raise TypeError(f"{made.__name__} lacks {', '.join(missing)}")
    made.__wasmill__ = "aggregate"
    return made


def filter(function):
    """An operator that lets events through for which a function says so."""

    def event(self, event, ctx):
        if function(event):
            ctx.forward()

    return _simple(function, event)


def map(function):
    """An operator that makes one new value of every event."""

    def event(self, event, ctx):
        ctx.emit(function(event))

    return _simple(function, event)


def flat_map(function):
    """An operator that makes any number of values of every event: a generator."""

    def event(self, event, ctx):
        return function(event)

    return _simple(function, event)


def _simple(function, event):
    return operator(type(function.__name__, (), {"event": event, "__doc__": function.__doc__, "__module__": function.__module__}))


def find(module, kind: str):
    """The operator or aggregate of a module."""
    found = {id(made): made for made in vars(module).values() if getattr(made, "__wasmill__", None) == kind}
    if len(found) != 1:
        raise TypeError(f"{module.__name__} has {len(found)} classes or functions with @wasmill.{kind}, expected 1")
    return next(iter(found.values()))
