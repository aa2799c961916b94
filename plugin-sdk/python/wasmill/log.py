"""Log lines of an operator. They appear in the job's log once the call that wrote them counts."""

_write = None


def debug(message: str) -> None:
    """For the author of the operator."""
    _write("debug", str(message))


def info(message: str) -> None:
    """For whoever looks."""
    _write("info", str(message))


def warn(message: str) -> None:
    """Something is odd."""
    _write("warn", str(message))


def error(message: str) -> None:
    """Something is wrong."""
    _write("error", str(message))
