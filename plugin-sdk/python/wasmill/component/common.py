"""What the worlds share."""

from componentize_py_types import Err
from wit_world.imports import log as host_log
from wit_world.imports import metrics as host_metrics
from wit_world.imports.types import (
    Batch, Clock, Column, Emission, Failure_Fatal, Failure_Retry, Outcome, Output_Keep, Output_Rows,
    Output_Unchanged, Output_Values, Rejected, Rows,
)
from wit_world.exports.plugin import Columns, Descriptor, Space, Ttl

from .. import log, plugin
from ..config import ConfigError
from ..driver import Descriptor as Described
from ..failure import Fatal, Retry, reason, story

LEVELS = {
    "debug": host_log.Level.DEBUG,
    "info": host_log.Level.INFO,
    "warn": host_log.Level.WARN,
    "error": host_log.Level.ERROR,
}
CLOCKS = {"event": Clock.EVENT, "processing": Clock.PROCESSING}
log._write = lambda level, message: host_log.write(LEVELS[level], message)

_NAME = _VERSION = MADE = None


def register(name: str, version: str, module, kind: str) -> None:
    """Says which operator this component is: while it is built."""
    global _NAME, _VERSION, MADE
    _NAME, _VERSION, MADE = name, version, plugin.find(module, kind)


def guarded(call):
    """Runs a call; what it raises is the call's failure."""
    try:
        return call()
    except Retry as error:
        raise Err(Failure_Retry(str(error)))
    except Fatal as error:
        raise Err(Failure_Fatal(str(error)))
    except ConfigError as error:
        raise Err(Failure_Fatal(str(error)))
    except Exception as error:
        log.error(story(error))
        raise Err(Failure_Fatal(reason(error)))


def describe(open_, config: bytes) -> Descriptor:
    """What the plugin says about itself."""
    try:
        described = open_(config)
    except Exception:
        # Without a configuration there is nothing wrong with one.
        if config:
            raise
        described = Described(MADE)
    flags = Columns(0)
    for name, flag in (("times", Columns.TIMES), ("keys", Columns.KEYS), ("values", Columns.VALUES)):
        if name in described.columns:
            flags |= flag
    spaces = [
        Space(name, version, None if ttl is None else Ttl(CLOCKS[ttl[0]], ttl[1]))
        for name, version, ttl in described.spaces
    ]
    return Descriptor(_NAME, _VERSION, described.inputs, described.outputs, spaces, flags, described.watermarks)


def pair(column: Column):
    """Ends and bytes."""
    return column.ends, column.data


def metric(kind, name, value):
    """Hands a metric to the host."""
    getattr(host_metrics, kind)(name, value)


def outcome(done) -> Outcome:
    """What a call made, as the interface has it."""
    emissions, rejected = done
    return Outcome(
        [Emission(port, _output(form, what)) for port, (form, what) in emissions],
        [Rejected(row, why) for row, why in rejected],
    )


def _output(form, what):
    if form == "unchanged":
        return Output_Unchanged()
    if form == "keep":
        return Output_Keep(what)
    if form == "values":
        return Output_Values(Column(*what))
    times, keys, values, origins = what
    return Output_Rows(Rows(Batch(times, Column(*keys), Column(*values)), list(origins)))
