"""A worker's settings are checked before it starts: a wrong one shows in no job's fate."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeGuard

from arq.cron import CronJob
from arq.worker import Function

from partywall_workers.errors import InvalidJob
from partywall_workers.policy import SYSTEM_LANE
from partywall_workers.redis import MAX_DELAY

SHORTEST = 0.001
"""Seconds that are still something."""

_LANE = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_Check = Callable[[object], bool]


def checked_settings(settings: Mapping[str, object]) -> None:
    """Refuses settings that can be none of a worker's; those not named are not looked at.

    Raises:
        InvalidJob: one cannot be.
    """
    for name, (expected, check) in _SETTINGS.items():
        if name in settings and not check(settings[name]):
            raise InvalidJob(name, f"expected {expected}; got {settings[name]!r}")


def checked_lanes(lanes: object) -> tuple[str, ...]:
    """Queues to serve, the first first.

    Raises:
        InvalidJob: there is none, or something that is no queue's name.
    """
    if not _is_list(lanes) or not lanes:
        raise InvalidJob("queues", f"expected a list of at least one queue; got {lanes!r}")
    for lane in lanes:
        if lane != SYSTEM_LANE and not (isinstance(lane, str) and _LANE.fullmatch(lane)):
            raise InvalidJob(
                "queues",
                "expected names of 1 to 64 letters, digits, `.`, `_`, `-`, starting with a letter "
                f"or digit; got {lane!r}",
            )
    return tuple(lanes)


def checked_list(name: str, given: object) -> Iterable[object]:
    """A setting that lists something.

    Raises:
        InvalidJob: it is no list.
    """
    if not _is_list(given):
        raise InvalidJob(name, f"expected a list; got {given!r}")
    return given


def checked_function(function: Function | CronJob) -> None:
    """Refuses what arq's `func` and `cron` take, and nothing can run by.

    Raises:
        InvalidJob: one of its settings cannot be.
    """
    for name, value, (expected, check) in (
        ("max_tries", function.max_tries, _TRIES),
        ("timeout", function.timeout_s, _TIMEOUT),
        ("keep_result", function.keep_result_s, _KEPT),
    ):
        if value is not None and not check(value):
            raise InvalidJob(f"{name} of {function.name}", f"expected {expected}; got {value!r}")


def _is_list(given: object) -> TypeGuard[Collection[Any]]:
    return isinstance(given, Collection) and not isinstance(given, str | bytes | Mapping)


def _whole(lowest: int) -> _Check:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= lowest

    return check


def _seconds(lowest: float, *, none: bool = False) -> _Check:
    def check(value: object) -> bool:
        if value is None:
            return none
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return lowest <= value <= MAX_DELAY

    return check


_TRIES = ("a whole number from 1", _whole(1))
_TIMEOUT = ("seconds above 0, or None for no end", _seconds(SHORTEST, none=True))
_KEPT = ("seconds from 0", _seconds(0, none=True))
_SETTINGS = {
    "max_jobs": ("a whole number from 1", _whole(1)),
    "max_tries": _TRIES,
    "max_burst_jobs": ("a whole number, -1 for no end", _whole(-1)),
    "job_timeout": _TIMEOUT,
    "keep_result": _KEPT,
    "keep_dead": _KEPT,
    "lease": ("seconds from 1", _seconds(1)),
    "job_completion_wait": ("seconds from 0, or None for no end", _seconds(0, none=True)),
    "health_check_interval": ("seconds above 0", _seconds(SHORTEST)),
}
