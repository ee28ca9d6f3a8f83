"""`@job`: what a job function declares about itself."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import iscoroutinefunction
from math import isfinite
from typing import Any, Literal, TypeVar, get_args, overload

from arq.typing import WorkerCoroutine
from arq.utils import to_seconds

from partywall_workers.errors import InvalidJob

OnRefusal = Literal["retry", "fail"]

BACKOFF = 1.0
"""Seconds before a second try."""

LONGEST_BACKOFF = 3600.0
"""Seconds before a try, at most."""

JITTER = 0.25
"""Parts of a pause by which it may be shorter or longer: what failed together comes back apart."""

LONGEST_REFUSAL = 600.0
_FIRST_REFUSAL = 5.0

_OPTIONS = "__partywall_job__"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a job function declares.

    Attributes:
        name: what it is enqueued by; None: its qualified name.
        quota: amounts by resource, consumed once for each job before it first runs.
        on_refusal: a job whose quota is refused is tried later, or fails.
        max_tries: of each job; None: the worker's.
        backoff: seconds before the second try, twice as long before each further one.
        max_backoff: seconds before a try, at most.
        timeout: seconds a try may run; None: the worker's.
        keep_result: seconds that a finished job is kept; None: the worker's.
        cost: of one start, in shares of its tenant's turn.
    """

    name: str | None = None
    quota: Mapping[str, int] = field(default_factory=dict)
    on_refusal: OnRefusal = "retry"
    max_tries: int | None = None
    backoff: float = BACKOFF
    max_backoff: float = LONGEST_BACKOFF
    timeout: float | None = None
    keep_result: float | None = None
    cost: float = 1

    def pause(self, attempts: int) -> float:
        """Seconds before another try after so many."""
        return jittered(min(self.backoff * 2.0 ** min(attempts - 1, 60), self.max_backoff))


_DEFAULT = JobOptions()


@overload
def job(function: F, /) -> F: ...
@overload
def job(
    *,
    name: str | None = None,
    quota: Mapping[str, int] | None = None,
    on_refusal: OnRefusal = "retry",
    max_tries: int | None = None,
    backoff: float = BACKOFF,
    max_backoff: float = LONGEST_BACKOFF,
    timeout: float | timedelta | None = None,
    keep_result: float | timedelta | None = None,
    cost: float = 1,
) -> Callable[[F], F]: ...
def job(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    quota: Mapping[str, int] | None = None,
    on_refusal: OnRefusal = "retry",
    max_tries: int | None = None,
    backoff: float = BACKOFF,
    max_backoff: float = LONGEST_BACKOFF,
    timeout: float | timedelta | None = None,
    keep_result: float | timedelta | None = None,
    cost: float = 1,
) -> F | Callable[[F], F]:
    """Declares how a coroutine function runs as a job. It stays what it is, and can be called.

    Args:
        function: the coroutine function, where no option is given.
        name: what it is enqueued by; left out, its qualified name, as with arq.
        quota: amounts by resource, consumed once for each job before it first runs, however often
            it is tried; given back if it never ran, or raises `GiveBack`.
        on_refusal: a job whose quota is refused is tried later (`retry`), or fails (`fail`).
        max_tries: of each job; left out, the worker's. After the last one it is dead.
        backoff: seconds before the second try, twice as long before each further one, a quarter
            more or less by chance.
        max_backoff: seconds before a try, at most.
        timeout: seconds a try may run; left out, the worker's.
        keep_result: seconds that a finished job is kept; left out, the worker's.
        cost: of one start: a job of cost 2 uses up its tenant's turn for two.

    Raises:
        InvalidJob: an option cannot be.
    """
    if not isinstance(quota, Mapping | None):
        raise InvalidJob(
            "quota", f"expected whole numbers by resource, such as {{'emails': 1}}; got {quota!r}"
        )
    options = JobOptions(
        name=name,
        quota=dict(quota or {}),
        on_refusal=on_refusal,
        max_tries=max_tries,
        backoff=backoff,
        max_backoff=max_backoff,
        timeout=to_seconds(timeout),
        keep_result=to_seconds(keep_result),
        cost=cost,
    )
    _check(options)

    def declared(function: F) -> F:
        if not iscoroutinefunction(function):
            raise InvalidJob("function", f"expected a coroutine function; got {function!r}")
        setattr(function, _OPTIONS, options)
        return function

    return declared if function is None else declared(function)


def options_of(function: Callable[..., Any] | WorkerCoroutine) -> JobOptions:
    """What the function declares."""
    options: JobOptions = getattr(function, _OPTIONS, _DEFAULT)
    return options


def name_of(function: Callable[..., Any]) -> str:
    """What the function is enqueued by."""
    return options_of(function).name or function.__qualname__


def refusal_pause(refusals: int) -> float:
    """Seconds before a job is tried again whose quota was refused, for the time after so many."""
    return jittered(min(_FIRST_REFUSAL * 2.0 ** min(refusals, 60), LONGEST_REFUSAL))


def jittered(seconds: float) -> float:
    """A quarter more or less."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


def _check(options: JobOptions) -> None:
    if options.name is not None and not (isinstance(options.name, str) and options.name):
        raise InvalidJob("name", f"expected a name, or nothing; got {options.name!r}")
    for resource, amount in options.quota.items():
        if not isinstance(resource, str) or not resource:
            raise InvalidJob("quota", f"expected a resource's name; got {resource!r}")
        if not _whole(amount):
            raise InvalidJob(f"quota.{resource}", f"expected a whole number from 1; got {amount!r}")
    if options.on_refusal not in get_args(OnRefusal):
        raise InvalidJob("on_refusal", f"expected 'retry' or 'fail'; got {options.on_refusal!r}")
    if options.max_tries is not None and not _whole(options.max_tries):
        raise InvalidJob("max_tries", f"expected a whole number from 1; got {options.max_tries!r}")
    for name in ("backoff", "max_backoff", "keep_result"):
        seconds = getattr(options, name)
        if seconds is not None and not (_finite(seconds) and seconds >= 0):
            raise InvalidJob(name, f"expected seconds from 0; got {seconds!r}")
    for name in ("timeout", "cost"):
        number = getattr(options, name)
        if number is not None and not (_finite(number) and number > 0):
            raise InvalidJob(name, f"expected a number above 0; got {number!r}")


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and isfinite(number)
