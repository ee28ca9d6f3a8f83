"""Whose request or job is running here.

A `contextvars` variable: asyncio tasks, `asyncio.to_thread` and anyio's threads copy the context
they were started from; a bare `threading.Thread` and `loop.run_in_executor` do not, so a function
given to those goes through `in_tenant_context`.
"""

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token, copy_context
from functools import wraps
from types import TracebackType
from typing import Final, ParamSpec, TypeVar, overload

import msgspec

from partywall.errors import ConfigurationError, NoTenant

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_Default = TypeVar("_Default")

_MISSING: Final = object()
_current: ContextVar["Tenant | Running"] = ContextVar("partywall.tenant")


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """A customer organisation, as the request or job that runs for it sees it.

    Attributes:
        id: its id, which is also `str()` of it.
        tier: what it pays for; None when nobody could say, as in an outage.
        features: its tier's.
    """

    id: str
    tier: str | None = None
    features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.id


Headers = Sequence[tuple[bytes, bytes]]
"""A request's, raw, as ASGI has them."""

Running = tuple[Tenant, Headers]
"""A request's tenant, and what it came with."""


@overload
def current_tenant() -> Tenant: ...
@overload
def current_tenant(default: _Default) -> Tenant | _Default: ...
def current_tenant(default: object = _MISSING) -> object:
    """The tenant whose request or job is running here.

    Args:
        default: what to answer where none is running.

    Raises:
        NoTenant: none is running here, and no default was given.
    """
    running = _current.get(None)
    if running is not None:
        return running[0] if type(running) is tuple else running
    if default is not _MISSING:
        return default
    raise NoTenant(
        "no tenant's request or job is running here: call it below PartywallMiddleware (not on an"
        " exempt path) or inside `with running_as(tenant)`, give a bare thread its function through"
        " in_tenant_context(), or ask current_tenant(default=None)"
    )


def current_headers() -> Headers:
    """The headers of the request that is running here; none where it is none, or a job."""
    running = _current.get(None)
    return running[1] if type(running) is tuple else ()


enter: Final[Callable[[Tenant | Running], Token[Tenant | Running]]] = _current.set
"""Makes a tenant the current one until `leave` is called with the answer, in this context."""

leave: Final[Callable[[Token[Tenant | Running]], None]] = _current.reset
"""Makes current again what was before the `enter` that gave the token."""


class running_as:  # noqa: N801 - used as `with running_as(tenant):`, as contextlib's own are
    """Runs a block as a tenant, and restores what was before.

    A class and not `@contextmanager`, whose result would also decorate: on a coroutine function
    that would end the tenant's context before the coroutine began.
    """

    __slots__ = ("_tenant", "_token")

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    def __enter__(self) -> Tenant:
        self._token = enter((self._tenant, current_headers()))  # it may be a part of a request
        return self._tenant

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self._token)


def in_tenant_context(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Makes `function` run in the context of this call, whichever thread calls it.

    For what does not copy the context: `threading.Thread(target=in_tenant_context(f))`,
    `loop.run_in_executor(pool, in_tenant_context(f))`, `pool.map(in_tenant_context(f), items)`.

    Raises:
        ConfigurationError: `function` is a coroutine function; a task has its context already.
    """
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"in_tenant_context() takes an ordinary function, not the coroutine function"
            f" {function.__qualname__}: a task started here has this context by itself"
        )
    context = copy_context()

    @wraps(function)
    def run(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        # A context can be entered once at a time, and several threads may run this together.
        return context.copy().run(function, *args, **kwargs)

    return run
