"""What a job is enqueued with: checked here, before anything is sent."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec

from partywall.errors import InvalidRequest
from partywall.jobs.records import JobStatus
from partywall.records import invalid

MAX_NAME = 200
"""Characters of a function's name, and of a job's id."""

MAX_DEFER = 3_155_760_000
"""Seconds that a job may be put off: a hundred years, as the queue itself takes them."""

MAX_DEPTH = 100
"""Lists and mappings within one another."""

MAX_DIGITS = 4300
"""Of a whole number: no more are read by a Python that is left as it comes."""

LOWEST, HIGHEST = 0, 9
"""The priorities."""

JOB_ID_PATTERN = re.compile(f"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{MAX_NAME - 1}}}")
"""What a job's id fully matches."""

NO_JOB_IDS = ("pause", "resume", "purge")
"""Their paths would be those of jobs."""

OPTIONS = ("_job_id", "_priority", "_defer_by", "_defer_until", "_idempotency_key")

_EXPECTED = (
    "expected what JSON carries: None, a bool, a finite number, text, a list, or a mapping by text"
)
_TOO_LONG = 10**MAX_DIGITS
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class NewJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `POST …/jobs` takes; what is left out is the sidecar's to say."""

    function: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    job_id: str | None = None
    priority: int | None = None
    defer_by: float | None = None
    defer_until: datetime | None = None


def new_job(
    function: str,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    *,
    job_id: str | None,
    priority: int | None,
    defer_by: float | timedelta | None,
    defer_until: datetime | None,
) -> NewJob:
    """A job that can be enqueued.

    Raises:
        InvalidRequest: something of it cannot be; with the field, as the caller wrote it.
    """
    if not isinstance(function, str) or not 1 <= len(function) <= MAX_NAME:
        expected = f"expected the name of a function, 1 to {MAX_NAME} characters"
        raise invalid("function", expected, function)
    # Else an option misspelt would be the job's to fail by, when it runs.
    for name in kwargs:
        if name.startswith("_"):
            raise invalid(name, f"names with a leading _ are options: {', '.join(OPTIONS)}", name)
    if job_id is not None:
        valid_job_id(job_id, at="_job_id")
    if priority is not None and (type(priority) is not int or not LOWEST <= priority <= HIGHEST):
        expected = f"expected a whole number from {LOWEST} to {HIGHEST}"
        raise invalid("_priority", expected, priority)
    if defer_by is not None and defer_until is not None:
        raise invalid("_defer_until", "expected either this or _defer_by", "both")
    return NewJob(
        function=_text(function, "function"),
        args=[plain(value, f"args[{place}]") for place, value in enumerate(args)],
        kwargs={
            _text(name, "kwargs"): plain(value, _below("kwargs", name))
            for name, value in kwargs.items()
        },
        job_id=job_id,
        priority=priority,
        defer_by=None if defer_by is None else _seconds(defer_by),
        defer_until=None if defer_until is None else _instant(defer_until),
    )


def valid_job_id(job_id: str, *, at: str = "job_id") -> None:
    """Refuses what can be no job's id.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(job_id, str) or JOB_ID_PATTERN.fullmatch(job_id) is None:
        expected = (
            f"expected a job's id: 1 to {MAX_NAME} letters, digits, '.', '_', '-' or ':', the "
            "first a letter or digit"
        )
        raise invalid(at, expected, job_id)
    if job_id in NO_JOB_IDS:
        raise invalid(at, f"expected an id other than {', '.join(NO_JOB_IDS)}", job_id)


def valid_status(status: JobStatus) -> None:
    """Refuses what can be no status of a job.

    Raises:
        InvalidRequest: it is none.
    """
    if status not in get_args(JobStatus):
        raise invalid("status", f"expected one of {', '.join(get_args(JobStatus))}", status)


def plain(value: object, at: str, depth: int = MAX_DEPTH) -> Any:  # noqa: ANN401 - any of JSON's
    """A value as the job will see it: what JSON makes of it, and nothing lost on the way.

    Args:
        value: None, a bool, a finite number, text, a list or tuple, or a mapping by text; or of a
            subclass of theirs, which is sent as what it is a kind of.
        at: where it stands, for the message.
        depth: how many lists and mappings there may be within one another.

    Raises:
        InvalidRequest: JSON cannot carry it, or only as something else.
    """
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, at)
        case int():
            number = int(value)
            if abs(number) >= _TOO_LONG:
                expected = f"expected a whole number of at most {MAX_DIGITS} digits"
                raise invalid(at, expected, f"{number.bit_length()} bits")
            return number
        case float():
            if not math.isfinite(value):
                raise invalid(at, _EXPECTED, value)
            return float(value)
    if not isinstance(value, list | tuple | dict):
        raise invalid(at, _EXPECTED, value)
    if depth == 0:
        # The list that has itself among its items is one of these, too.
        reason = f"expected lists and mappings at most {MAX_DEPTH} deep"
        raise InvalidRequest(f"{at[:60]}…: {reason}", [(at, reason)])
    if not isinstance(value, dict):
        return [plain(one, f"{at}[{place}]", depth - 1) for place, one in enumerate(value)]
    for key in value:
        if not isinstance(key, str):
            raise invalid(at, "expected a mapping by text", {key: value[key]})
    return {_text(key, at): plain(one, _below(at, key), depth - 1) for key, one in value.items()}


def _text(value: str, at: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise invalid(at, "expected text that UTF-8 carries", value) from exc
    return str.__str__(value)  # of a StrEnum's member, or the like: the text alone


def _below(at: str, key: str) -> str:
    return f"{at}.{key}" if _IDENTIFIER.fullmatch(key) else f"{at}[{ascii(key)[:60]}]"


def _seconds(defer_by: float | timedelta) -> float:
    seconds = defer_by.total_seconds() if isinstance(defer_by, timedelta) else defer_by
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not 0 <= seconds <= MAX_DEFER
    ):
        expected = f"expected seconds from 0 to {MAX_DEFER}, or a timedelta of as many"
        raise invalid("_defer_by", expected, defer_by)
    return seconds


def _instant(defer_until: datetime) -> datetime:
    if not isinstance(defer_until, datetime) or defer_until.utcoffset() is None:
        raise invalid("_defer_until", "expected a datetime with a time zone", defer_until)
    return defer_until.astimezone(UTC)
