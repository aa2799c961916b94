"""The world ``stateful``."""

from wit_world import exports
from wit_world.exports.migration import Migrated
from wit_world.imports import state, timers
from wit_world.imports.types import Clock, Column

from . import common, operator
from .operator import Operator, Plugin, register

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


operator.stand_on(_Host(), True)


class Timed(exports.Timed):
    """Timers and watermarks."""

    def on_timers(self, clock, fired):
        name = "event" if clock == Clock.EVENT else "processing"
        return common.guarded(
            lambda: common.outcome(operator.driver.on_timers(name, fired.times, _pair(fired.keys), _pair(fired.tags)))
        )

    def on_watermark(self, watermark):
        return common.guarded(lambda: common.outcome(operator.driver.on_watermark(watermark)))


class Migration(exports.Migration):
    """State that an older version has left."""

    def migrate(self, space, from_version, entries):
        def call():
            keys, values = _pair(entries.keys), _pair(entries.values)
            made, dropped = operator.driver.migrate(space, from_version, keys, values)
            return Migrated(Column(*made), dropped)

        return common.guarded(call)
