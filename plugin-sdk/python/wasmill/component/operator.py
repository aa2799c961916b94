"""What the worlds of operators share."""

from wit_world import exports

from ..driver import Driver
from . import common

_host = None
_stateful = False
driver = None


def stand_on(host, stateful: bool) -> None:
    """Says what the operator stands on."""
    global _host, _stateful
    _host, _stateful = host, stateful


def register(name, version, module):
    """Says which operator this component is."""
    common.register(name, version, module, "operator")


def _open(config):
    return Driver(common.MADE, config, _host, _stateful)


class Plugin(exports.Plugin):
    """What every plugin says about itself."""

    def describe(self, config):
        return common.guarded(lambda: common.describe(lambda config: _open(config).descriptor, config))

    def open(self, config):
        global driver
        driver = common.guarded(lambda: _open(config))


class Operator(exports.Operator):
    """An operator that sees every row."""

    def process(self, port, input):
        keys, values = common.pair(input.keys), common.pair(input.values)
        return common.guarded(lambda: common.outcome(driver.process(port, input.times, keys, values)))

    def flush(self):
        pass
