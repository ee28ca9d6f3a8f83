"""Requests to host apps, at a pace that two shared cores keep."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.support.host import Host
from tests.support.http1 import BROKEN, Connection, Reply, get


class Answered(NamedTuple):
    """One answer: what was asked, when (of the monotonic clock), and what came."""

    tenant: str
    sent: float
    came: float
    reply: Reply


class Traffic:
    """Requests to some hosts, while the block lasts.

    Attributes:
        answered: every answer, in the order in which they came.
        broken: requests whose connection broke: their host died.
    """

    def __init__(self, seed: int = 0) -> None:
        self.answered: list[Answered] = []
        self.broken = 0
        self._random = random.Random(seed)
        self._over = False
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Traffic":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        # A request whose host is frozen or gone would wait for ever.
        async with asyncio.timeout(60):
            await asyncio.gather(*self._running)

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter(one.reply.status for one in self.answered)

    def forget(self) -> None:
        """Begin the count anew; what is under way is counted when it is answered."""
        self.answered = []

    def add(
        self,
        host: Host,
        tenant: str | Callable[[], str],
        limit: str = "requests",
        *,
        rate: float,
        costs: Sequence[int] = (1,),
        together: int = 1,
    ) -> None:
        """Begins to ask a host.

        Args:
            host: whom.
            tenant: for whom, or what says so for each request.
            limit: which.
            rate: requests a second; fewer where the host does not keep up.
            costs: one of these each.
            together: how many connections send at once.
        """
        self._running.append(
            asyncio.create_task(self._ask(host, tenant, limit, together / rate, costs, together))
        )

    async def _ask(
        self,
        host: Host,
        tenant: str | Callable[[], str],
        limit: str,
        interval: float,
        costs: Sequence[int],
        together: int,
    ) -> None:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(Connection(host.url)) for _ in range(together)
            ]
            due = time.monotonic() + self._random.random() * interval
            while not self._over:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                # What was missed is not made up for: no burst follows a pause.
                due = max(due + interval, time.monotonic())
                await asyncio.gather(
                    *(
                        self._one(
                            connection,
                            tenant if isinstance(tenant, str) else tenant(),
                            limit,
                            self._random.choice(costs),
                        )
                        for connection in connections
                    )
                )

    async def _one(self, connection: Connection, tenant: str, limit: str, cost: int) -> None:
        sent = time.monotonic()
        headers = {"X-Tenant-ID": tenant, "X-Limit": limit, "X-Cost": str(cost)}
        try:
            reply = await connection.exchange(get("/", headers))
        except BROKEN:
            self.broken += 1
        else:
            self.answered.append(Answered(tenant, sent, time.monotonic(), reply))
