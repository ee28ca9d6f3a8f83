"""One engine with the turns for its connections."""

import asyncio
import logging
import traceback

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from partywall.pools.fair import FairSlots
from partywall.pools.stats import PoolUse

log = logging.getLogger("partywall")


class Pool:
    """An engine, none of whose connections is used without a slot.

    Args:
        engine: its own pool has at least `size` connections, so nobody queues in there.
        size: connections at once.
        owned: whether the engine ends with this.
    """

    def __init__(self, engine: AsyncEngine, size: int, *, owned: bool = True) -> None:
        self.engine = engine
        self.size = size
        self.slots = FairSlots(size)
        self.used_at = 0.0
        self._owned = owned

    @property
    def idle(self) -> bool:
        """Whether nobody has or wants a connection."""
        return not (self.slots.in_use or self.slots.waiting)

    @property
    def use(self) -> PoolUse:
        """How full it is."""
        return PoolUse(self.size, self.slots.in_use, self.slots.waiting)

    async def connect(self, tenant: str, cap: int) -> AsyncConnection | None:
        """A connection when it is the tenant's turn, to be given back; None to ask elsewhere."""
        if not await self.slots.acquire(tenant, cap):
            return None
        try:
            return await self.engine.connect()
        except BaseException as exc:
            # What the driver was just opening hangs on these frames, and would be the server's
            # connection beyond our size for as long as somebody keeps the exception.
            traceback.clear_frames(exc.__traceback__)
            self.slots.release(tenant)
            raise

    async def give_back(self, connection: AsyncConnection, tenant: str) -> None:
        """Rolls back what was not committed, then ends the turn. Not to be cancelled."""
        try:
            await connection.close()
        except SQLAlchemyError as exc:
            # What was to be kept is committed; what was not is lost with the connection.
            log.warning("a connection of tenant %r could not be reset: %s", tenant, exc)
        finally:
            self.used_at = asyncio.get_running_loop().time()
            self.slots.release(tenant)

    async def close(self) -> None:
        """Sends away who waits, and closes the connections when those in use have come back."""
        self.slots.send_all_away()
        await self.slots.unused()
        if self._owned:
            await self.engine.dispose()
