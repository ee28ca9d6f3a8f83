"""One tenant's usage as points in time: what Redis still holds, then what PostgreSQL has.

Redis is read first. What the roll-up moves meanwhile is then in both, and counted once: a minute
that Redis had is Redis's. So an answer is exact in the middle of a roll-up, too.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from partywall.quotas.periods import period_start
from partywall_service.policy.model import Period
from partywall_service.usage.levels import Change, Known
from partywall_service.usage.meters import is_level, level_meter
from partywall_service.usage.source import Source
from partywall_service.usage.spans import MINUTES, Step, first_step, floor, instant_of, minute_of


class UsagePoint(NamedTuple):
    """What one meter came to in one step.

    Attributes:
        start: of the step, UTC.
        meter: as `meters` has it.
        value: a count, microseconds, or the level at the end of the step.
    """

    start: datetime
    meter: str
    value: int


class Rows(Protocol):
    """What PostgreSQL has of usage (`UsageStore`)."""

    async def points(
        self,
        tenant: str,
        start: datetime,
        end: datetime,
        step: Step,
        fresh: Collection[datetime],
        scope: str | None = None,
    ) -> Sequence[UsagePoint]:
        """Points of steps that begin from `start` on and before `end`.

        A step that is `fresh`, or not rolled up since its minutes changed, comes as finer ones.
        """
        ...


class Levels(Protocol):
    """How much of each resource was used, and when (`LevelHistory`)."""

    async def lately(
        self, tenant: str, end: datetime, *, scope: str | None = None
    ) -> Sequence[Change]:
        """Changes before `end` that are not rolled up yet."""
        ...

    async def before(
        self,
        tenants: Collection[str],
        resources: Collection[str],
        moment: datetime,
        *,
        scope: str | None = None,
    ) -> Mapping[tuple[str, str], Known]:
        """What was rolled up, as it stood at `moment`, by tenant and resource."""
        ...


class Level(Protocol):
    """A quota as it stands (`QuotaState`)."""

    @property
    def resource(self) -> str:
        """Which."""
        ...

    @property
    def used(self) -> int:
        """Now, in this period."""
        ...

    @property
    def period(self) -> Period | None:
        """After which use refills."""
        ...

    @property
    def version(self) -> int:
        """0 where nothing was ever used."""
        ...


class Standings(Protocol):
    """All quotas of a tenant."""

    @property
    def quotas(self) -> Sequence[Level]:
        """Of every resource that some tier names."""
        ...


class LiveLevels(Protocol):
    """Who knows the levels as they are now (`Quotas`)."""

    async def read(self, tenant: str, *, scope: str | None = None) -> Standings:
        """All of a tenant's."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


class UsageReader:
    """Reads usage by minute, hour or day.

    Args:
        rows: what was rolled up.
        sources: where counts wait for it.
        levels: of quotas, as they were.
        quotas: as they are now.
        now: the wall clock, which says up to which step a level is filled forward.
    """

    def __init__(
        self,
        rows: Rows,
        sources: Sequence[Source],
        levels: Levels,
        quotas: LiveLevels,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._rows = rows
        self._sources = sources
        self._levels = levels
        self._quotas = quotas
        self._now = now

    async def points(
        self,
        tenant: str,
        start: datetime,
        end: datetime,
        step: Step,
        scope: str | None = None,
    ) -> list[UsagePoint]:
        """Points of steps that begin from `start` on and before `end`, by start and meter.

        Counters are there where they are not 0. A level is there from its first change on, in
        every step up to the one that runs, which has it as it is now; of resources that are not
        durable, there alone.

        Args:
            tenant: whose.
            start: aware, inclusive.
            end: aware, exclusive.
            step: aligned in UTC.
            scope: the tenant as whom to read, under row-level security.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer.
            UnknownTenant: with its id.
        """
        first, last = first_step(start, step), first_step(end, step)
        if first >= last:
            return []
        held: dict[tuple[int, str], int] = {}
        for source in self._sources:
            for point in await source.held([tenant]):
                if first <= point.minute < last:
                    held[point.minute, point.meter] = point.value
        begin, until = instant_of(first), instant_of(last)
        fresh = {instant_of(floor(minute, "hour")) for minute, _ in held}
        rows = await self._rows.points(tenant, begin, until, step, fresh, scope)
        sums: defaultdict[tuple[int, str], int] = defaultdict(int)
        changes = [row for row in rows if is_level(row.meter)]
        for moment, meter, value in rows:
            minute = minute_of(moment)
            if not is_level(meter) and (minute, meter) not in held:
                sums[floor(minute, step), meter] += value
        for (minute, meter), value in held.items():
            sums[floor(minute, step), meter] += value
        found = {key: value for key, value in sums.items() if value}
        found |= await self._filled(tenant, (first, last), step, changes, scope)
        return [
            UsagePoint(instant_of(minute), meter, found[minute, meter])
            for minute, meter in sorted(found)
        ]

    async def _filled(
        self,
        tenant: str,
        span: tuple[int, int],
        step: Step,
        changes: Iterable[Change | UsagePoint],
        scope: str | None,
    ) -> dict[tuple[int, str], int]:
        """The levels at the end of each step, from their changes."""
        first, last = span
        begin, until = instant_of(first), instant_of(last)
        running = floor(minute_of(self._now()), step)
        standing = await self._quotas.read(tenant, scope=scope)
        live = {level_meter(one.resource): one for one in standing.quotas}
        names = [one.resource for one in standing.quotas]
        before = await self._levels.before([tenant], names, begin, scope=scope)
        known: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for (_, resource), one in before.items():
            if one.at is not None:
                known[level_meter(resource)][minute_of(one.at)] = one.value
        # What is not rolled up yet comes last, and so it is what counts.
        lately = await self._levels.lately(tenant, until, scope=scope)
        for moment, meter, value in (*changes, *lately):
            known[meter][minute_of(moment)] = value
        steps = range(first, min(last, running + 1), MINUTES[step])
        found: dict[tuple[int, str], int] = {}
        for meter, levels in known.items():
            period = live[meter].period if meter in live else None
            for start, value in _forward(levels, steps, period):
                found[start, meter] = value
        if first <= running < last:
            for meter, level in live.items():
                if level.version or meter in known:
                    found[running, meter] = level.used
        return found


def _forward(
    levels: Mapping[int, int], steps: range, period: Period | None
) -> Iterator[tuple[int, int]]:
    """Each step with the level at its end: the last that is known, until it refills.

    A refill is written down with the next change only; till then nothing says it but the calendar.
    """
    changes = deque(sorted(levels.items()))
    at, value = 0, None
    for start in steps:
        while changes and changes[0][0] < start + steps.step:
            at, value = changes.popleft()
        if value is None:
            continue
        if period is not None:
            refilled = period_start(period, instant_of(start + steps.step - 1))
            if minute_of(refilled) > at:
                value = 0
        yield start, value
