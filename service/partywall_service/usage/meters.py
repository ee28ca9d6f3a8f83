"""The meters: what is counted of a tenant, and how their values are kept.

Values are whole numbers everywhere but in answers: counts, levels, or microseconds for meters of
seconds, which sum without loss.
"""

import re

MICROSECONDS = 1_000_000

LIMIT_OUTCOMES = ("admitted", "denied", "would_deny", "degraded")
"""Of a limit's decisions. Dry runs are none; a degraded one counts as what it was, too."""

STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")

IN_FLIGHT = "requests.in_flight_seconds"

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

REPORTED = re.compile(
    rf"limits\.{_NAME}\.(?:{'|'.join(LIMIT_OUTCOMES)})"
    rf"|requests\.(?:in_flight_seconds|{'|'.join(STATUS_CLASSES)})"
)
"""What SDK processes may report, to be matched whole."""


def limit_meter(limit: str, outcome: str) -> str:
    """The meter of one limit's decisions of one outcome."""
    return f"limits.{limit}.{outcome}"


def level_meter(resource: str) -> str:
    """The meter of how much of a resource is used."""
    return f"quotas.{resource}.used"


def is_seconds(meter: str) -> bool:
    """Whether it is a time, kept in microseconds.

    A limit or a resource may be called so, but then its meter goes on after its name.
    """
    return meter.endswith("_seconds")


def is_level(meter: str) -> bool:
    """Whether its value is how much is held at the end of a step, and not a sum over it."""
    return meter.startswith("quotas.")


def shown(meter: str, value: int) -> int | float:
    """A value as answers have it: seconds for times, else the number itself."""
    return value / MICROSECONDS if is_seconds(meter) else value
