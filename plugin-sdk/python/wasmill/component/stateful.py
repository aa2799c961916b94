"""The world ``stateful``."""

from wit_world import exports
from wit_world.imports import state, timers
from wit_world.imports.types import Clock, Column

from ..driver import Driver
from . import common

_driver = None
_pair = common.pair


class _Host:
    metric = staticmethod(common.metric)

    @staticmethod
    def get_many(space, keys, subkeys):
        found, values = state.get_many(space, Column(*keys), Column(*subkeys))
        return found, values.ends, values.data

    @staticmethod
    def put_many(space, keys, subkeys, values):
        state.put_many(space, Column(*keys), Column(*subkeys), Column(*values))

    @staticmethod
    def delete_many(space, keys, subkeys):
        state.delete_many(space, Column(*keys), Column(*subkeys))

    @staticmethod
    def scan(space, key, start, limit):
        subkeys, values = state.scan(space, key, start, limit)
        return _pair(subkeys), _pair(values)

    @staticmethod
    def now(clock):
        return timers.now(common.CLOCKS[clock])

    @staticmethod
    def set_timers(clock, keys, tags, times):
        timers.set_many(common.CLOCKS[clock], Column(*keys), Column(*tags), times)

    @staticmethod
    def delete_timers(clock, keys, tags):
        timers.delete_many(common.CLOCKS[clock], Column(*keys), Column(*tags))


def register(name, version, module):
    """Says which operator this component is."""
    common.register(name, version, module, "operator")


def _open(config):
    return Driver(common.MADE, config, _Host(), True)


class Plugin(exports.Plugin):
    """What every plugin says about itself."""

    def describe(self, config):
        return common.guarded(lambda: common.describe(lambda config: _open(config).descriptor, config))

    def open(self, config):
        global _driver
        _driver = common.guarded(lambda: _open(config))


class Operator(exports.Operator):
    """An operator that sees every row."""

    def process(self, port, input):
        return common.guarded(
            lambda: common.outcome(_driver.process(port, input.times, _pair(input.keys), _pair(input.values)))
        )

    def flush(self):
        pass


class Timed(exports.Timed):
    """Timers and watermarks."""

    def on_timers(self, clock, fired):
        name = "event" if clock == Clock.EVENT else "processing"
        return common.guarded(
            lambda: common.outcome(_driver.on_timers(name, fired.times, _pair(fired.keys), _pair(fired.tags)))
        )

    def on_watermark(self, watermark):
        return common.guarded(lambda: common.outcome(_driver.on_watermark(watermark)))
