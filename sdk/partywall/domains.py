"""Tenants by their own domains, looked up through the sidecar and remembered."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from partywall.errors import ConfigurationError, SidecarError
from partywall.recent import Recent
from partywall.scope import Scope, host

Find = Callable[[str], Awaitable[str | None]]
"""Whose a domain is: the tenant's id, or None; raises `SidecarError` when nobody can say."""

REMEMBERED = 10_000
"""Domains of tenants, and as many hosts that are nobody's, kept apart: a flood of made-up hosts
must not push out the real ones."""

KNOWN_FOR = 30.0
"""Seconds a tenant's domain is used without asking again."""

UNKNOWN_FOR = 5.0
"""Seconds a host counts as nobody's: a domain just registered works soon."""

RETRY_AFTER = 1.0
"""Seconds that an old answer goes on being used after a failed look-up before the next is tried."""

AT_ONCE = 8
"""Look-ups under way together at most, whatever hosts are asked for."""

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}")


class _Answer(NamedTuple):
    tenant: str | None
    until: float


class _UnderWay:
    """The look-ups of one event loop; nothing of a loop that was abandoned may hold up the next."""

    __slots__ = ("loop", "room", "tasks")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.room = asyncio.Semaphore(AT_ONCE)
        self.tasks: dict[str, asyncio.Task[str | None]] = {}

    def add(self, name: str, task: "asyncio.Task[str | None]") -> None:
        def done(task: "asyncio.Task[str | None]") -> None:
            del self.tasks[name]
            if not task.cancelled():
                task.exception()  # retrieved, because everybody who waited may have hung up

        self.tasks[name] = task
        task.add_done_callback(done)


class FromDomain:
    """The tenant to whom the `Host` is registered as a domain of its own.

    Whoever sends a request chooses its `Host`, so this tells who is asked for, not who asks.

    Args:
        ignore: your own domains: these and everything under them are never looked up.
        header: where the host stands; another than `host` only behind a proxy that sets it.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        ignore: Iterable[str] = (),
        header: str = "host",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        names = [ignore] if isinstance(ignore, str) else ignore
        self._ignored = tuple("." + name.lower().strip(".") for name in names)
        self._header = header.lower().encode()
        self._clock = clock
        self._find: Find | None = None
        self._known: Recent[str, _Answer] = Recent(REMEMBERED)
        self._unknown: Recent[str, _Answer] = Recent(REMEMBERED)
        self._under_way: _UnderWay | None = None

    def use(self, find: Find) -> None:
        """Takes what looks a domain up; `PartywallMiddleware` gives its sidecar's."""
        self._find = find

    def __call__(self, scope: Scope) -> str | Awaitable[str | None] | None:
        """The tenant's id, at once when the host is remembered.

        Raises:
            SidecarError: (when awaited) the host is not remembered and nobody can say whose it is.
            ConfigurationError: nothing to look domains up with.
        """
        name = host(scope, self._header)
        if name is None or not _DOMAIN.fullmatch(name) or ("." + name).endswith(self._ignored):
            return None
        answer = self._remembered(name)
        if answer is not None and self._clock() < answer.until:
            return answer.tenant
        return self._look_up(name)

    def _remembered(self, name: str) -> _Answer | None:
        return self._known.get(name) or self._unknown.get(name)

    async def _look_up(self, name: str) -> str | None:
        under_way = self._under_way
        if under_way is None or under_way.loop is not asyncio.get_running_loop():
            under_way = self._under_way = _UnderWay()
        task = under_way.tasks.get(name)
        if task is None:
            task = asyncio.create_task(self._ask(name, under_way.room))
            under_way.add(name, task)
        # Shielded: others may wait for it, and whoever asked first may hang up.
        return await asyncio.shield(task)

    async def _ask(self, name: str, room: asyncio.Semaphore) -> str | None:
        if self._find is None:
            raise ConfigurationError(
                "FromDomain has nothing to look domains up with: give it to PartywallMiddleware as"
                " a resolver, or call use()"
            )
        try:
            async with room:
                tenant = await self._find(name)
        except SidecarError:
            old = self._remembered(name)
            if old is None:
                raise
            self._remember(name, old.tenant, RETRY_AFTER)
            return old.tenant
        self._remember(name, tenant, UNKNOWN_FOR if tenant is None else KNOWN_FOR)
        return tenant

    def _remember(self, name: str, tenant: str | None, seconds: float) -> None:
        keep, drop = (
            (self._unknown, self._known) if tenant is None else (self._known, self._unknown)
        )
        keep.put(name, _Answer(tenant, self._clock() + seconds))
        drop.drop(name)
