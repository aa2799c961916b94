"""What an operator declares when it is opened."""

from .codec import Codec
from .state import Map, Shared, Value


class Metric:
    """A metric of the operator, published under its job and stage."""

    def __init__(self, pending, kind, name):
        self._pending, self._kind, self._name = pending, kind, name

    def add(self, delta: int = 1) -> None:
        """Adds to a counter."""
        self._pending.append((self._kind, self._name, delta))

    def set(self, value: float) -> None:
        """Sets a gauge."""
        self._pending.append((self._kind, self._name, float(value)))

    def observe(self, value: float) -> None:
        """Records one observation of a histogram."""
        self._pending.append((self._kind, self._name, float(value)))


class Setup:
    """Declares state and metrics. The same configuration declares the same."""

    def __init__(self, host, outputs):
        self.shared = Shared(host)
        self.metrics = []
        #: Names of the output ports, the default first; may be replaced.
        self.outputs = list(outputs)

    def value(self, name: str, codec: Codec, version: int = 1, ttl=None, migrate=None) -> Value:
        """One value per event key. ``ttl`` is a clock, ``"event"`` or ``"processing"``, and microseconds
        after which an entry vanishes; ``version`` is raised when the meaning of the bytes changes.
        ``migrate`` has a function for each older version whose entries are taken over: it makes a value
        of their bytes, or ``None`` where the entry goes."""
        return Value(self.shared, name, codec, version, ttl, migrate)

    def map(self, name: str, key: Codec, codec: Codec, version: int = 1, ttl=None, migrate=None) -> Map:
        """A map per event key."""
        if key.key is None:
            raise TypeError("the key of a map is u64, i64, text or bytes_")
        return Map(self.shared, name, key, codec, version, ttl, migrate)

    def counter(self, name: str) -> Metric:
        """A number that only grows."""
        return Metric(self.metrics, "add", name)

    def gauge(self, name: str) -> Metric:
        """A number that goes up and down."""
        return Metric(self.metrics, "set", name)

    def histogram(self, name: str) -> Metric:
        """The distribution of what is observed."""
        return Metric(self.metrics, "observe", name)
