"""The world ``windowed``."""

from wit_world import exports
from wit_world.exports.aggregate import Folded, Results
from wit_world.imports.types import Column, Rejected

from ..aggregate import AggregateDriver
from ..driver import Descriptor
from . import common

_driver = None
_pair = common.pair


def register(name, version, module):
    """Says which aggregate this component is."""
    common.register(name, version, module, "aggregate")


def _described(config):
    AggregateDriver(common.MADE, config)
    return Descriptor(common.MADE)


class Plugin(exports.Plugin):
    """What every plugin says about itself."""

    def describe(self, config):
        return common.guarded(lambda: common.describe(_described, config))

    def open(self, config):
        global _driver
        _driver = common.guarded(lambda: AggregateDriver(common.MADE, config))


class Aggregate(exports.Aggregate):
    """Pure functions over accumulators."""

    def fold(self, accumulators, groups, input):
        def call():
            folded, rejected = _driver.fold(
                _pair(accumulators), groups, input.times, _pair(input.keys), _pair(input.values)
            )
            return Folded(Column(*folded), [Rejected(row, why) for row, why in rejected])

        return common.guarded(call)

    def merge(self, accumulators, groups, count):
        return common.guarded(lambda: Column(*_driver.merge(_pair(accumulators), groups, count)))

    def finish(self, panes, accumulators):
        def call():
            values, places = _driver.finish(panes.starts, panes.ends, _pair(panes.keys), _pair(accumulators))
            return Results(Column(*values), places)

        return common.guarded(call)
