"""What is told of an exception."""

import traceback

from partywall_workers.serial import sendable

_LONGEST_ERROR = 1000
_LONGEST_TRACEBACK = 8000


def error_text(exc: BaseException) -> str:
    """Type and message, of at most a thousand characters."""
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - `__str__` is anybody's
        text = "(its text cannot be made)"
    name = type(exc).__name__
    return sendable((f"{name}: {text}" if text else name)[:_LONGEST_ERROR])


def traceback_text(exc: BaseException) -> str:
    """Its traceback, the last 8,000 characters of it; nothing for what was never raised."""
    if exc.__traceback__ is None:
        return ""
    return sendable("".join(traceback.format_exception(exc))[-_LONGEST_TRACEBACK:])
