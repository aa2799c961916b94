"""What can be said against an event, or against a call."""

import traceback


class Reject(Exception):
    """The event at hand cannot be processed: it goes to the dead letters with these words."""


class Retry(Exception):
    """The call may succeed later. Nothing of it counts."""


class Fatal(Exception):
    """The call fails always. Nothing of it counts."""


REASON_CHARS_MAX = 1000


def reason(error: BaseException) -> str:
    """An exception as the reason of a dead letter: its text, and where it was raised."""
    if isinstance(error, Reject):
        return str(error)[:REASON_CHARS_MAX]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/wasmill/" not in frame.filename] or frames
    places = ", ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} in {frame.name}" for frame in reversed(own))
    return f"{type(error).__name__}: {error} (at {places})"[:REASON_CHARS_MAX]


def story(error: BaseException) -> str:
    """An exception with its stack, for the log."""
    return "".join(traceback.format_exception(error)).rstrip()
