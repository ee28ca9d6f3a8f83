"""What Prometheus is told of the busiest tenants: as was judged last, the same of any sidecar."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select

from partywall_service.ledger.base import Store
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.tables import neighbours
from partywall_service.metrics import Reader
from partywall_service.usage.verdict import Verdict

FRESH = 5.0
"""Seconds for which one reading is told again; tenants are judged every 15."""

DEADLINE = 1.0
"""Seconds PostgreSQL has to answer a scrape."""

MOST_NAMED = 20
"""Tenants told by name."""

STALE = timedelta(minutes=5)
"""How old a judgement may be that is told as today's."""

VERDICTS: Sequence[Verdict] = get_args(Verdict)

_c = neighbours.c

# One statement, so one moment: numbers of all, beside the rows of the busiest.
_BUSIEST = (
    select(
        _c.tenant,
        _c.tier,
        _c.requests,
        _c.denied,
        _c.in_flight_us,
        _c.job_run_us,
        _c.share,
        _c.fair_share,
        _c.verdict,
        *(
            func.count().filter(_c.verdict == verdict).over().label(f"all_{verdict}")
            for verdict in VERDICTS
        ),
        (func.clock_timestamp() - _c.computed_at).label("age"),
    )
    .order_by(_c.share.desc(), _c.requests.desc(), _c.tenant)
    .limit(MOST_NAMED)
)

_NUMBERS: Sequence[tuple[str, str, Callable[[Any], float]]] = (
    ("requests", "decisions of the last hour.", lambda row: row.requests),
    ("denied", "decisions of the last hour that were denials.", lambda row: row.denied),
    (
        "in_flight_seconds",
        "time that requests of the last hour were in flight.",
        lambda row: row.in_flight_us / 1e6,
    ),
    (
        "job_run_seconds",
        "time that jobs ran in the last hour.",
        lambda row: row.job_run_us / 1e6,
    ),
    ("share", "part, from 0 to 1, of what it took most of.", lambda row: row.share),
    ("fair_share", "part of that which its tier's weight gives it.", lambda row: row.fair_share),
)


class Busiest(NamedTuple):
    """The last judgement, as far as metrics tell of it.

    Attributes:
        rows: of the tenants with the largest shares.
        verdicts: how many were judged so.
        age: since when; None where nobody was active, or nothing was judged yet.
    """

    rows: Sequence[Any]
    verdicts: Mapping[str, int]
    age: timedelta | None


class BusiestStore(Store):
    """Reads it."""

    async def busiest(self) -> Busiest:
        """As the maintenance jobs wrote it last.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        async with self._reading() as connection:
            rows = (await connection.execute(_BUSIEST)).all()
        if not rows:
            return Busiest((), dict.fromkeys(VERDICTS, 0), None)
        first = rows[0]._mapping  # noqa: SLF001 - how SQLAlchemy's rows are read by name
        return Busiest(rows, {one: first[f"all_{one}"] for one in VERDICTS}, first["age"])


class Judged(Protocol):
    """Who knows (`BusiestStore`)."""

    async def busiest(self) -> Busiest:
        """As was judged last."""
        ...


class NeighbourMetrics(Reader):
    """Reads what was judged last for a scrape; tells nothing while PostgreSQL does not answer.

    Args:
        store: where from.
        clock: seconds, from any start.
    """

    def __init__(self, store: Judged, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(FRESH, clock=clock)
        self._store = store

    async def _read(self) -> Sequence[Metric]:
        try:
            async with asyncio.timeout(DEADLINE):
                busiest = await self._store.busiest()
        except (TimeoutError, LedgerUnavailable):
            return ()
        if busiest.age is None:
            return (_counts(busiest.verdicts),)
        age = GaugeMetricFamily(
            "partywall_neighbors_age_seconds",
            "Since tenants were judged.",
            value=max(0.0, busiest.age.total_seconds()),
        )
        if busiest.age > STALE:
            return (age,)
        return (age, _counts(busiest.verdicts), *_named(busiest.rows))


def _counts(verdicts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "partywall_neighbors",
        "Tenants by what they were judged, of those that are kept.",
        labels=["verdict"],
    )
    for verdict in VERDICTS:
        family.add_metric([verdict], verdicts[verdict])
    return family


def _named(rows: Sequence[Any]) -> Sequence[Metric]:
    families = []
    for name, text, value in _NUMBERS:
        family = GaugeMetricFamily(
            f"partywall_tenant_{name}", f"Of the busiest tenants: {text}", labels=["tenant"]
        )
        for row in rows:
            family.add_metric([row.tenant], value(row))
        families.append(family)
    verdict = GaugeMetricFamily(
        "partywall_tenant_verdict",
        "1, of the busiest tenants: what they were judged.",
        labels=["tenant", "tier", "verdict"],
    )
    for row in rows:
        verdict.add_metric([row.tenant, row.tier, row.verdict], 1)
    return (*families, verdict)
