"""The world ``stateless``."""

from wit_world import exports

from ..driver import Driver
from . import common

_driver = None


class _Host:
    metric = staticmethod(common.metric)


def register(name, version, module):
    """Says which operator this component is."""
    common.register(name, version, module, "operator")


def _open(config):
    return Driver(common.MADE, config, _Host(), False)


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
        pair = common.pair
        return common.guarded(
            lambda: common.outcome(_driver.process(port, input.times, pair(input.keys), pair(input.values)))
        )

    def flush(self):
        pass
