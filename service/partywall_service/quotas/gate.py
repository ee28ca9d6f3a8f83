"""What PostgreSQL denied a moment ago, denied again without asking it: noise stays cheap.

A level is remembered in Redis for a second at most, under the version PostgreSQL gave it. Whoever
lowers a level tells its new one before the caller is answered. So a denial is a second late at
worst, and only where that telling failed; nothing is ever admitted here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from msgspec.structs import replace
from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import answering_within
from partywall_service.engine.scripts import Script
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas import keys
from partywall_service.quotas.model import Outcome, QuotaState, Terms
from partywall_service.quotas.shards import ShardedBatcher

REMEMBERED = timedelta(seconds=1)
"""For how long a level is remembered at most."""

STALE = timedelta(seconds=5)
"""Age from which an answer of PostgreSQL is not remembered: it is the repetition of an old one.
So long before its period ends no level is remembered either, however late it reaches Redis. A
sidecar whose clock is so much ahead remembers nothing, and PostgreSQL is asked: no harm."""

MOST_TENANTS = 10_000
"""Tenants of whom this process knows at once that they were denied."""

RETRY_AFTER = 0.2
"""Seconds after a failure of Redis in which it is not asked for denials: nobody waits for it."""

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode
_states = msgspec.json.Decoder(QuotaState)

_Word = tuple[str, str]
"""A key, and what about it, as the script's header says."""

_Told = tuple[datetime, bytes | None]
"""When, by Redis's clock; and the text that was asked for, None where there is none."""


class GateScript:
    """`gate.lua`: levels to remember, to forget and to tell of.

    Args:
        client: from `connect`, or any redis-py client.
        deadline: seconds until a call counts as failed.
    """

    def __init__(self, client: Redis | RedisCluster, *, deadline: float) -> None:
        self._client = client
        self._deadline = deadline
        self._script = Script("gate", __package__)

    async def decide(self, words: Sequence[_Word]) -> list[_Told]:
        """What is told of each, in order.

        Args:
            words: of one shard if the client is a cluster's.

        Raises:
            StoreError: no answer within the deadline.
        """
        names = [key for key, _ in words]
        async with answering_within(self._deadline):
            reply = await self._script(self._client, names, [what for _, what in words])
        now = datetime.fromtimestamp(reply[0], UTC) + timedelta(microseconds=reply[1])
        texts = iter(reply[2:])
        return [(now, None if what else next(texts)) for _, what in words]


class RedisGate:
    """Remembers levels that were too full for what was asked.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed.
        clock: seconds, from any start.
        today: the time of day, to know an old answer by.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        prefix: str = "pw",
        deadline: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._prefix = prefix
        self._batcher = ShardedBatcher(client, GateScript(client, deadline=deadline))
        self._clock = clock
        self._today = today
        self._denied: dict[str, float] = {}  # when PostgreSQL last did, the longest ago first
        self._failing = False
        self._quiet_until = -float("inf")

    async def denial(
        self, tenant: str, items: Mapping[str, int], terms: Mapping[str, Terms]
    ) -> Outcome | None:
        """The denial of what is known to have no room; None when PostgreSQL must be asked.

        Only the levels are remembered: room is judged by `terms`. What reservations hold is not
        counted, because they may expire. Redis is asked only where this process saw PostgreSQL
        deny the tenant something of late.

        Args:
            tenant: who asks.
            items: amounts, by resource.
            terms: what applies to each of these now.
        """
        if not self._was_denied(tenant) or self._clock() < self._quiet_until:
            return None
        told = await self._tell(
            tenant, [(keys.remembered(self._prefix, tenant, name), "") for name in items]
        )
        states = []
        for name, (now, text) in zip(items, told, strict=False):
            state = None if text is None else _now(_states.decode(text), terms[name], now)
            if state is None:
                return None
            states.append(state)
        denied = [one.resource for one in states if one.used + items[one.resource] > _most(one)]
        if not denied:
            return None
        return Outcome(tuple(states), tuple(denied), at=told[0][0])

    async def note(self, tenant: str, outcome: Outcome) -> None:
        """Tells every sidecar how the outcome left its quotas; never raises."""
        if outcome.at is None or not outcome.quotas:
            return
        is_fresh = self._today() - outcome.at < STALE
        if outcome.denied and is_fresh:
            self._saw_denied(tenant)
        words = []
        for state in outcome.quotas:
            life = _life(state, outcome.at) if is_fresh else 0
            text = f"{life} {state.version} {_encode(state).decode()}" if life else "forget"
            words.append((keys.remembered(self._prefix, tenant, state.resource), text))
        await self._tell(tenant, words)

    async def _tell(self, tenant: str, words: list[_Word]) -> list[_Told]:
        """What the script says; nothing while Redis fails, which is logged once."""
        try:
            told = await self._batcher.decide(tenant, words)
        except StoreError as exc:
            if not self._failing:
                log.warning("quotas.gate_lost", cause=str(exc), denials="asked of PostgreSQL")
            self._failing = True
            self._quiet_until = self._clock() + RETRY_AFTER
            return []
        if self._failing:
            log.info("quotas.gate_back")
        self._failing = False
        return told

    def _was_denied(self, tenant: str) -> bool:
        last = self._denied.get(tenant)
        return last is not None and self._clock() - last < REMEMBERED.total_seconds()

    def _saw_denied(self, tenant: str) -> None:
        now = self._clock()
        self._denied.pop(tenant, None)
        while self._denied:
            oldest, last = next(iter(self._denied.items()))
            if len(self._denied) < MOST_TENANTS and now - last < REMEMBERED.total_seconds():
                break
            del self._denied[oldest]
        self._denied[tenant] = now


def _life(state: QuotaState, at: datetime) -> int:
    """Milliseconds for which a level may be remembered; 0 for not at all."""
    life = REMEMBERED
    if state.resets_at is not None:
        life = min(life, state.resets_at - at - STALE)
    return max(0, life // timedelta(milliseconds=1))


def _now(state: QuotaState, terms: Terms, now: datetime) -> QuotaState | None:
    """What is remembered, under the terms that apply now; None where it says nothing any more."""
    if terms.per != state.period or (state.resets_at is not None and now >= state.resets_at):
        return None
    limit = terms.limit
    crossed = state.crossed if limit and state.used * 100 >= (state.crossed or 0) * limit else None
    return replace(
        state,
        unit=terms.unit,
        limit=limit,
        remaining=None if limit is None else max(0, limit - state.used - state.reserved),
        crossed=crossed,
        crossed_at=state.crossed_at if crossed else None,
    )


def _most(state: QuotaState) -> int:
    return MAX_AMOUNT if state.limit is None else state.limit
