"""Neighbours: each tenant's share of what all did lately, live and as last written."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import BigInteger, Select, bindparam, func, select, true

from partywall_service.ledger.tables import neighbours
from partywall_service.names import is_tenant_id
from partywall_service.policy.model import Policy, Tier
from partywall_service.usage.activity import ActivityStore, Sums
from partywall_service.usage.source import Source
from partywall_service.usage.spans import floor, minute_of
from partywall_service.usage.verdict import Activity, Neighbour, Pace, judge

HOUR = timedelta(hours=1)
LONGEST = timedelta(hours=24)

STALE = timedelta(minutes=2)
"""Age above which a snapshot tells nothing: they are written every quarter of a minute."""

_DEAR = 0.25
"""Seconds of work above which an answer is given again for a while."""

_AGAIN = 5
"""Times its own cost for which a judgement is given again: a flood of questions keeps the database
busy for a fifth of the time."""

_USUAL_AGAIN = 100
"""Likewise for what is usual, which changes by the hour."""

_LONGEST_AGAIN = 60.0
"""Seconds for which anything is given again, at most."""

_MOST = 8
"""Windows whose answers are kept for that."""

MOST_TOLD = 100_000
"""Of each verdict, where a reader names no number: all there are."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


def _snapshot() -> Select[Any]:
    """The first `most` of each verdict, each beside what all took."""
    c = neighbours.c
    recent = c.computed_at > func.now() - STALE
    largest = (c.share.desc(), c.requests.desc(), c.tenant)
    place = func.row_number().over(partition_by=c.verdict, order_by=largest).label("place")
    written = select(neighbours, place).where(recent).subquery()
    totals = select(
        *(
            func.sum(c[name]).label(f"all_{name}")
            for name in ("requests", "in_flight_us", "job_run_us")
        )
    ).where(recent)
    summed = totals.subquery()
    w = written.c
    return (
        select(written, summed)
        .select_from(written.join(summed, true()))  # one row, beside each
        .where(w.place <= bindparam("most", type_=BigInteger))
        .order_by(w.share.desc(), w.requests.desc(), w.tenant)
    )


_SNAPSHOT = _snapshot()
"""Made once: to put it together costs as much as to ask it."""


class Holder(Protocol):
    """Has the policy in force."""

    @property
    def current(self) -> Policy:
        """As it is now."""
        ...


class NeighbourStore(ActivityStore):
    """The statements of `Neighbours`."""

    async def snapshot(self, most: int) -> list[Neighbour]:
        """As the maintenance jobs wrote it last, the largest share first; none when long ago.

        Args:
            most: of each verdict.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        async with self._reading() as connection:
            rows = (await connection.execute(_SNAPSHOT, {"most": most})).all()
        return [
            Neighbour(
                tenant=row.tenant,
                tier=row.tier,
                requests=row.requests,
                denied=row.denied,
                in_flight_us=row.in_flight_us,
                job_run_us=row.job_run_us,
                share=row.share,
                fair_share=row.fair_share,
                resource=row.resource,
                verdict=row.verdict,
                reason=row.reason,
                requests_share=_share(row.requests, row.all_requests),
                in_flight_share=_share(row.in_flight_us, row.all_in_flight_us),
                jobs_share=_share(row.job_run_us, row.all_job_run_us),
            )
            for row in rows
        ]


class Neighbours:
    """Who took how much, and what that did to the others.

    Args:
        store: PostgreSQL.
        sources: where counts wait for it.
        policy: the tiers, for their weights.
        now: the wall clock; it decides where the window begins.
        clock: seconds that only go forward, to tell what an answer costs.
    """

    def __init__(
        self,
        store: NeighbourStore,
        sources: Sequence[Source],
        policy: Holder,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sources = tuple(sources)
        self._policy = policy
        self._now = now
        self._judged: _Shared[int, list[Neighbour]] = _Shared(self._judge, _AGAIN, clock)
        self._usual: _Shared[int, dict[str, Pace]] = _Shared(store.usual, _USUAL_AGAIN, clock)

    async def judge(self, window: timedelta = HOUR) -> list[Neighbour]:
        """Everyone active in the window, the minute that runs included; the largest share first.

        Questions that come at once are answered together. Where the answer is dear, it is given
        again for a while: at 10,000 tenants for some seconds.

        Args:
            window: whole minutes, from one to `LONGEST`.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer.
            ValueError: the window is none.
        """
        minutes, rest = divmod(window, timedelta(minutes=1))
        if rest or not timedelta(0) < window <= LONGEST:
            raise ValueError(f"expected whole minutes, up to {LONGEST}; got {window}")
        return await self._judged.get(minutes)

    async def snapshot(self, *, most: int = MOST_TOLD) -> list[Neighbour]:
        """As the maintenance jobs wrote it last, of the last hour; the largest share first.

        It has those who are noisy, victims, and who else took most of what is shared. It is empty
        where no maintenance job ran for `STALE`.

        Args:
            most: of each of the three.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        return await self._store.snapshot(most)

    async def _judge(self, minutes: int) -> list[Neighbour]:
        # Redis before PostgreSQL: what the roll-up moves meanwhile is then in both, not in none.
        held = [point for source in self._sources for point in await source.held()]
        end = minute_of(self._now()) + 1
        first = end - minutes
        # A Redis whose clock is ahead counts in minutes that are still to come here.
        end = max([end, *(point.minute + 1 for point in held)])
        sums = await self._store.sums(first, end, held)
        tiers = await self._store.tiers(sums)
        usual = await self._usual.get(floor(first, "hour"))
        # Ten thousand tenants take a tenth of a second, in which this thread has others to answer.
        return await asyncio.to_thread(_judged, sums, tiers, usual, self._policy.current)


class _Shared(Generic[Question, Answer]):
    """Answers each question once for all who ask at once, and dear ones not anew for a while.

    Args:
        ask: makes an answer.
        again: times its cost for which a dear one is given again.
        clock: seconds.
    """

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[Answer]],
        again: float,
        clock: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._again = again
        self._places: OrderedDict[Question, _Place[Answer]] = OrderedDict()

    async def get(self, question: Question) -> Answer:
        """The answer, which was begun after this was called unless it is dear."""
        asked = self._clock()
        place = self._places.setdefault(question, _Place())
        self._places.move_to_end(question)
        while len(self._places) > _MOST:
            self._places.popitem(last=False)
        async with place.lock:
            if place.answer is None or place.begun < asked - place.lasts:
                begun = self._clock()
                place.answer = await self._ask(question)
                place.begun, cost = begun, self._clock() - begun
                place.lasts = min(self._again * cost, _LONGEST_AGAIN) if cost >= _DEAR else 0.0
            return place.answer


class _Place(Generic[Answer]):
    """Where an answer is made.

    Attributes:
        lock: held by whoever makes it.
        answer: the last one.
        begun: when it was begun.
        lasts: seconds from then for which it is given again.
    """

    __slots__ = ("answer", "begun", "lasts", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.answer: Answer | None = None
        self.begun = 0.0
        self.lasts = 0.0


def _share(part: int, whole: Decimal) -> float:
    return part / int(whole) if whole else 0.0


def _judged(
    sums: Mapping[str, Sums], tiers: Mapping[str, str], usual: Mapping[str, Pace], policy: Policy
) -> list[Neighbour]:
    """Those who are tenants now: not what nobody's jobs did, nor who has no tier any more."""
    default = policy.tiers.get(policy.default_tier) if policy.default_tier else None
    activities = []
    for tenant, one in sums.items():
        tier = policy.tiers.get(tiers.get(tenant, ""), default)
        if tier is not None and is_tenant_id(tenant):
            activities.append(_activity(tenant, tier, one))
    return judge(activities, usual)


def _activity(tenant: str, tier: Tier, sums: Sums) -> Activity:
    return Activity(
        tenant=tenant,
        tier=tier.name,
        weight=tier.weight,
        requests=sums.requests,
        denied=sums.denied,
        shed=sums.shed,
        run=sums.run,
        pace=sums.pace,
    )
