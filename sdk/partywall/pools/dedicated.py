"""Pools of single tenants: opened when used, closed when idle or when others need the room."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import Context

from partywall.pools.background import Background
from partywall.pools.pool import Pool


class DedicatedPools:
    """Who has a pool of its own, and which of them are open.

    Args:
        open_pool: makes one, of a tenant and a size; it connects when it is used.
        most: pools open at once.
        idle_seconds: one that is unused for so long is closed, within twice that time.
        background: where they are closed.
    """

    def __init__(
        self,
        open_pool: Callable[[str, int], Pool],
        most: int,
        idle_seconds: float,
        background: Background,
    ) -> None:
        self.open: OrderedDict[str, Pool] = OrderedDict()
        self._open_pool = open_pool
        self._most = most
        self._idle_seconds = idle_seconds
        self._background = background
        self._sizes: dict[str, int] = {}
        self._closing: set[Pool] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None

    def set(self, tenant: str, size: int | None) -> bool:
        """Gives a tenant a pool of that size, or none; whether that is a change."""
        if self._sizes.get(tenant) == size:
            return False
        if size is None:
            del self._sizes[tenant]
        else:
            self._sizes[tenant] = size
        self._close(tenant)
        return True

    def of(self, tenant: str) -> Pool | None:
        """The tenant's pool, opened if it must be; None for the shared one.

        That is for who has none, and while as many as may be are open and none of them is idle.
        """
        size = self._sizes.get(tenant)
        if size is None:
            return None
        if tenant not in self.open:
            if len(self.open) >= self._most and not self._close_idle():
                return None
            self.open[tenant] = self._open_pool(tenant, size)
        self.open.move_to_end(tenant)
        if self._sweep_timer is None:
            self._sweep_later()
        return self.open[tenant]

    def all(self) -> Iterator[Pool]:
        """Those that are open, and those that close when the last connection comes back."""
        yield from self.open.values()
        yield from self._closing

    def close_all(self) -> None:
        """Closes every pool as soon as nobody uses it."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for tenant in list(self.open):
            self._close(tenant)

    def _close_idle(self) -> bool:
        """Closes the least recently used pool that nobody uses, if there is one."""
        for tenant, pool in self.open.items():
            if pool.idle:
                self._close(tenant)
                return True
        return False

    def _close(self, tenant: str) -> None:
        pool = self.open.pop(tenant, None)
        if pool is not None:
            self._closing.add(pool)
            closing = self._background.start(pool.close())
            closing.add_done_callback(lambda _: self._closing.discard(pool))

    def _sweep_later(self) -> None:
        self._sweep_timer = asyncio.get_running_loop().call_later(
            self._idle_seconds, self._sweep, context=Context()
        )

    def _sweep(self) -> None:
        self._sweep_timer = None
        since = asyncio.get_running_loop().time() - self._idle_seconds
        for tenant, pool in list(self.open.items()):
            if pool.idle and pool.used_at <= since:
                self._close(tenant)
        if self.open:
            self._sweep_later()
