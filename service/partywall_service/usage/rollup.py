"""The roll-up: what is counted in Redis goes to PostgreSQL, minute by minute, and is summed up.

Where it is interrupted, whatever it had not done is done by the next one, and whatever it had done
comes out the same again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from partywall_service.engine.base import StoreError
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.usage.source import Point, Source
from partywall_service.usage.store import UsageStore

EVERY = 30
"""Seconds between two roll-ups."""

LATELY = timedelta(seconds=EVERY + 10)
"""Who rolls up only where nobody else does leaves it when it was done so shortly before."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long usage is kept, in days.

    Attributes:
        minutes: by the minute.
        hours: by the hour; at least as long as minutes.
        days: by the day; at least as long as hours.
    """

    minutes: int
    hours: int
    days: int

    def bounds(self, now: datetime) -> tuple[datetime, datetime, datetime]:
        """Before when minutes, hours and days need not be kept."""
        hours = max(self.minutes, self.hours)
        lengths = (self.minutes, hours, max(hours, self.days))
        minutes, hours_from, days = (now - timedelta(days=length) for length in lengths)
        return minutes, hours_from, days


class RollUp:
    """Moves what is over from Redis to PostgreSQL.

    Args:
        store: PostgreSQL.
        sources: where counts wait.
        keep: how long usage is kept.
        now: the wall clock, which says what hours are over.
    """

    def __init__(
        self,
        store: UsageStore,
        sources: Sequence[Source],
        keep: Retention,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._sources = sources
        self._keep = keep
        self._now = now

    async def run(self, *, unless_within: timedelta | None = None) -> int | None:
        """Moves all there is, sums up what is over, and drops what is kept no longer.

        Args:
            unless_within: leaves it when a roll-up came to its end so shortly before.

        Returns:
            How many points were moved; None when another roll-up is under way, or was lately.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: a Redis did not answer; what others have is moved and summed up.
        """
        async with self._store.alone() as alone:
            if not alone or await self._done(unless_within):
                return None
            return await self._run()

    async def _done(self, within: timedelta | None) -> bool:
        if within is None:
            return False
        rolled = await self._store.rolled()
        return rolled.at is not None and rolled.now - rolled.at < within

    async def _run(self) -> int:
        # First, so that what is too old is not written only to be dropped.
        dropped = await self._store.drop_before(*self._keep.bounds(self._now()))
        if dropped:
            log.info("usage.dropped", partitions=dropped)
        moved, failures = 0, []
        for source in self._sources:
            try:
                moved += await self._move(source)
            except StoreError as error:
                failures.append(error)
        await self._store.levels()
        await self._store.aggregate(self._now())
        if failures:
            raise failures[0]
        await self._store.note(moved)
        return moved

    async def _move(self, source: Source) -> int:
        """Moves what one source has; while PostgreSQL writes, Redis reads on and removes."""
        moved = 0
        batches = source.closed()
        written, points = None, await anext(batches, None)
        while points or written:
            steps = [_next(batches)]
            if points:
                steps.append(self._store.upsert(points))
            if written:
                steps.append(source.forget(written))
            following, *_ = await _together(steps)
            moved += len(points or ())
            written, points = points, following
        return moved


async def _next(batches: AsyncIterator[list[Point]]) -> list[Point] | None:
    return await anext(batches, None)


async def _together(steps: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What each of these answers, done at once; none of them outlives a failure of another."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step) for step in steps]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class Roller:
    """Rolls up through outages, and says once that it could not.

    Args:
        roll_up: what it runs.
    """

    def __init__(self, roll_up: RollUp) -> None:
        self._roll_up = roll_up
        self._failing = False

    async def roll(self, *, unless_within: timedelta | None = None) -> bool:
        """As `RollUp.run`; False when a part of it did not answer."""
        try:
            await self._roll_up.run(unless_within=unless_within)
        except (LedgerUnavailable, StoreError) as exc:
            if not self._failing:
                log.warning("usage.not_rolled_up", cause=str(exc))
            self._failing = True
            return False
        self._failing = False
        return True
