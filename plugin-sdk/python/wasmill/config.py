"""The configuration of a stage."""

import json
from typing import Any

_MISSING = object()


class ConfigError(Exception):
    """What is wrong with a configuration, and where."""

    def __init__(self, message: str, field: str = ""):
        super().__init__(f"config: `{field}`: {message}" if field else f"config: {message}")


class Config:
    """Fields of the stage's ``config``. One that nobody asked for is an error."""

    def __init__(self, data: bytes):
        given = data.strip()
        try:
            value = json.loads(given) if given else {}
        except ValueError as error:
            raise ConfigError(str(error)) from None
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise ConfigError(f"expected an object, found {json.dumps(value)}")
        self._fields = value
        self._asked: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        """A field of any type, or the default."""
        self._asked.append(name)
        return self._fields.get(name, default)

    def str(self, name: str, default: Any = _MISSING) -> str:
        """A field that has to be text. Without a default it has to be there."""
        return self._typed(name, default, "a string", lambda value: isinstance(value, str))

    def int(self, name: str, default: Any = _MISSING) -> int:
        """A field that has to be an integer."""
        return self._typed(
            name, default, "an integer", lambda value: type(value) is int
        )

    def float(self, name: str, default: Any = _MISSING) -> float:
        """A field that has to be a number."""
        return self._typed(name, default, "a number", lambda value: type(value) in (int, float))

    def bool(self, name: str, default: Any = _MISSING) -> bool:
        """A field that has to be true or false."""
        return self._typed(name, default, "true or false", lambda value: isinstance(value, bool))

    def _typed(self, name, default, what, fits):
        value = self.get(name, default)
        if value is _MISSING:
            raise ConfigError(f"missing field `{name}`")
        if name in self._fields and not fits(value):
            raise ConfigError(f"expected {what}, found {json.dumps(value)}", name)
        return value

    def _done(self) -> None:
        for name in self._fields:
            if name not in self._asked:
                known = " or ".join(f"`{asked}`" for asked in self._asked)
                hint = f"expected {known}" if known else "this operator takes none"
                raise ConfigError(f"unknown field `{name}`, {hint}", name)
