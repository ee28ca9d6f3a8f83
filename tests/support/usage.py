"""Usage with a list for a source."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.engine.connect import connect
from partywall_service.ledger import Ledger
from partywall_service.policy.holder import PolicyHolder
from partywall_service.quotas.overview import QuotaOverview
from partywall_service.quotas.service import Quotas
from partywall_service.quotas.volatile import VolatileQuotas
from partywall_service.usage.levels import LevelHistory
from partywall_service.usage.reading import UsageReader
from partywall_service.usage.reports import Reports
from partywall_service.usage.source import Point
from partywall_service.usage.store import UsageStore
from partywall_service.usage.totals import UsageTotals


class HeldPoints:
    """What a Redis would hold."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points = list(points)

    async def closed(self) -> AsyncIterator[list[Point]]:
        """All of it."""
        yield list(self.points)

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes what is still as it was."""
        self.points = [one for one in self.points if one not in points]

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """Of these tenants, or all."""
        return [one for one in self.points if tenants is None or one.tenant in tenants]


@dataclass(frozen=True)
class HandMadeUsage:
    """What is read of usage.

    Attributes:
        store: what is rolled up.
        source: what is not; the only one.
        reader: one tenant's.
        reports: all tenants'.
    """

    store: UsageStore
    source: HeldPoints
    reader: UsageReader
    reports: Reports


def hand_made_usage(
    engine: AsyncEngine,
    ledger: Ledger,
    holder: PolicyHolder,
    quotas: Quotas,
    *,
    now: datetime | None = None,
) -> HandMadeUsage:
    """Usage on the database, with nothing in any Redis; the clock stands still at `now`."""

    def clock() -> datetime:
        return now or datetime.now(UTC)

    store, source, levels = UsageStore(engine), HeldPoints(), LevelHistory(engine)
    overview = QuotaOverview(engine, holder, VolatileQuotas(connect("unix:///nowhere")))
    return HandMadeUsage(
        store,
        source,
        UsageReader(store, [source], levels, quotas, now=clock),
        Reports(UsageTotals(engine), [source], levels, overview, ledger, holder, now=clock),
    )
