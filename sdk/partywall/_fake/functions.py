"""What jobs call, as a worker's settings list it: plain, of arq's `func()`, or declared by `@job`.

The SDK imports neither arq nor the workers' package; what they mark is told by its name.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from partywall.errors import ConfigurationError

Functions = Mapping[str, Any] | Iterable[Any]
"""Coroutine functions, or what arq's `func()` makes of one; or a mapping of them by name."""

_DECLARED = "__partywall_job__"


class Function(NamedTuple):
    """A job's function, and what it says of itself.

    Attributes:
        call: the coroutine function.
        max_tries: None where it does not say.
        backoff: seconds before the second try, twice as many before each further one.
        max_backoff: the most of them.
        quota: what each job consumes before it first runs, by resource.
        on_refusal: what becomes of a job that does not get it: `retry` or `fail`.
    """

    call: Callable[..., Awaitable[Any]]
    max_tries: int | None
    backoff: float
    max_backoff: float
    quota: Mapping[str, int]
    on_refusal: str

    def pause(self, attempts: int) -> float:
        """Seconds before another try after so many: a worker's, without its jitter."""
        return min(self.backoff * 2.0 ** min(attempts - 1, 60), self.max_backoff)


def by_name(functions: Functions) -> dict[str, Function]:
    """The functions by the names that a worker would give them.

    Raises:
        ConfigurationError: one of them is no coroutine function.
    """
    if isinstance(functions, Mapping):
        return {name: _function(given) for name, given in functions.items()}
    return {name_of(given): _function(given) for given in functions}


def name_of(given: Any) -> str:  # noqa: ANN401 - whatever the caller gave
    """What a worker calls it."""
    declared = getattr(getattr(given, _DECLARED, None), "name", None)
    named = declared or getattr(given, "name", None)
    # One that a test has made for itself goes by the name that it has there.
    return str(named or getattr(given, "__qualname__", "").rpartition("<locals>.")[2])


def is_a(exc: BaseException, *names: str) -> bool:
    """Whether it is of a class of one of these names, modules and all."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(exc).__mro__)


def _function(given: Any) -> Function:  # noqa: ANN401 - whatever the caller gave
    call = getattr(given, "coroutine", given)
    if not inspect.iscoroutinefunction(call):
        raise ConfigurationError(
            f"expected coroutine functions, or arq's func() of them; got {given!r}"
        )
    declared = getattr(call, _DECLARED, None)
    return Function(
        call,
        getattr(given, "max_tries", None) or getattr(declared, "max_tries", None),
        getattr(declared, "backoff", 1.0),
        getattr(declared, "max_backoff", 3600.0),
        getattr(declared, "quota", {}),
        getattr(declared, "on_refusal", "retry"),
    )
