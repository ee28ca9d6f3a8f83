"""The production engine: sliding windows in Redis, Valkey or a cluster of either."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine import keys
from partywall_service.engine.base import Question, Verdict
from partywall_service.engine.connect import answering_within
from partywall_service.engine.scripts import DecideScript

WARM_UP_DEADLINE = 2.0
"""Seconds for the first call, at the start, when nobody waits for an answer yet."""


class RedisEngine:
    """Decides by one script call a batch; on a cluster by one a shard, side by side.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed.
        metering: whether decisions are counted for usage.
        observe: told of each call that was answered: its checks, and the seconds it took.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        prefix: str = "pw",
        deadline: float = 0.05,
        metering: bool = True,
        observe: Callable[[int, float], None] = lambda _checks, _seconds: None,
    ) -> None:
        self._client = client
        self._deadline = deadline
        self._script = DecideScript(prefix, metering=metering)
        self._observe = observe
        self._by_shard = isinstance(client, RedisCluster)

    async def decide(self, checks: Sequence[Question], *, now: int | None = None) -> list[Verdict]:
        """One verdict for each question, in order.

        Args:
            checks: those of one limit and tenant are decided in this order.
            now: microseconds since the epoch in place of Redis's clock, for tests.

        Raises:
            StoreError: no answer within the deadline; a charge may or may not have been made.
        """
        begun = perf_counter()
        async with answering_within(self._deadline):
            if self._by_shard:
                verdicts = await self._decide_by_shard(checks, now)
            else:
                verdicts = await self._script(self._client, checks, now=now)
        self._observe(len(checks), perf_counter() - begun)
        return verdicts

    async def warm_up(self) -> None:
        """Connects and sends the script, so that the first check finds both there.

        Raises:
            StoreError: Redis did not take it within `WARM_UP_DEADLINE`.
        """
        async with answering_within(WARM_UP_DEADLINE):
            await self._script(self._client, [])

    async def _decide_by_shard(self, checks: Sequence[Question], now: int | None) -> list[Verdict]:
        places: dict[int, list[int]] = {}
        for place, check in enumerate(checks):
            places.setdefault(keys.shard(check.tenant), []).append(place)
        answers = await asyncio.gather(
            *(
                self._script(self._client, [checks[place] for place in of_shard], now=now)
                for of_shard in places.values()
            )
        )
        verdicts: dict[int, Verdict] = {}
        for of_shard, answer in zip(places.values(), answers, strict=True):
            verdicts.update(zip(of_shard, answer, strict=True))
        return [verdicts[place] for place in range(len(checks))]
