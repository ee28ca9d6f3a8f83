"""Parameters and answers of usage (docs/contract.md section 4, Usage)."""

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from partywall_service.api.schemas import LAST_EXPIRY, Instant, Utc
from partywall_service.ledger.records import Status
from partywall_service.policy.model import Unit
from partywall_service.usage.meters import IN_FLIGHT, STATUS_CLASSES, shown
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.reports import TenantReport
from partywall_service.usage.spans import EPOCH, Step

METER_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _countable(moment: datetime | None) -> datetime | None:
    if moment is not None and not EPOCH <= moment < LAST_EXPIRY:
        raise ValueError(f"expected an instant from 1970 on and before the year 9999; got {moment}")
    return moment


Moment = Annotated[
    Instant,
    AfterValidator(_countable),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

FromQuery = Annotated[
    Moment,
    Query(
        alias="from",
        description="The beginning, RFC 3339: of steps that begin then or later. Left out: an "
        "hour, a day or 30 days before `to`, as the step is a minute, an hour or a day.",
    ),
]
ReportFromQuery = Annotated[
    Moment,
    Query(
        alias="from",
        description="The beginning, RFC 3339: of minutes that begin then or later. Left out: "
        "midnight (UTC) 30 days before the day of `to`.",
    ),
]
ToQuery = Annotated[
    Moment,
    Query(description="The end, RFC 3339: of steps that begin before it. Left out: now."),
]
StepQuery = Annotated[Step, Query(description="How long a point is; aligned in UTC.")]
FormatQuery = Annotated[
    Literal["json", "csv"],
    Query(
        alias="format", description="JSON in pages, or CSV: then all of it, whatever `page_size`."
    ),
]
MeterFilter = Annotated[
    str | None,
    Query(
        pattern=METER_PATTERN,
        description="Only this meter, or those whose names begin with it and a dot.",
        examples=["limits.requests"],
    ),
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Point(_Answer):
    """What one meter came to in one step."""

    start: Utc = Field(description="Of the step.")
    meter: str
    value: int | float = Field(description="A count, seconds, or the level at the step's end.")

    @classmethod
    def of(cls, point: UsagePoint) -> Self:
        """A point as clients see it."""
        return cls(start=point.start, meter=point.meter, value=shown(point.meter, point.value))


class Points(_Answer):
    """A page of one tenant's usage, by start and meter."""

    points: list[Point]
    next_cursor: str | None


class LimitTotals(_Answer):
    """Decisions of a limit; degraded ones are among the others, too."""

    admitted: int
    denied: int
    would_deny: int
    degraded: int


class LimitReport(LimitTotals):
    """One limit's."""

    limit: str


class QuotaReport(_Answer):
    """What was used of one resource."""

    resource: str
    unit: Unit
    used: int | None = Field(description="At the end; null where nobody knows any more.")
    limit: int | None = Field(description="As it is now; null when unlimited.")
    days_until_full: float | None = Field(
        description="From the end, at the pace of its last 7 days; null when it is unlimited, "
        "does not grow, or refills before."
    )


class JobsReport(_Answer):
    """Background jobs."""

    started: int
    succeeded: int
    failed: int
    run_seconds: float
    wait_seconds: float


class TenantInPeriod(LimitTotals):
    """One tenant in a period; its decisions are the sum over its limits."""

    tenant: str
    name: str | None = Field(description="Null where nobody registered it.")
    tier: str | None
    status: Status | None
    limits: list[LimitReport] = Field(description="Those that decided anything.")
    limits_hit: list[str] = Field(description="Those that denied anything.")
    requests: dict[str, int | float] = Field(
        description="`in_flight_seconds`, and requests by the class of their status.",
        examples=[{"in_flight_seconds": 12.5, "2xx": 100, "3xx": 0, "4xx": 3, "5xx": 0}],
    )
    jobs: JobsReport
    quotas: list[QuotaReport]

    @classmethod
    def of(cls, report: TenantReport) -> Self:
        """A report as clients see it."""
        totals, limits = report.totals, report.limits

        def total(meter: str) -> int | float:
            return shown(meter, totals.get(meter, 0))

        return cls(
            tenant=report.tenant,
            name=report.name,
            tier=report.tier,
            status=report.status,
            admitted=sum(one.admitted for one in limits),
            denied=sum(one.denied for one in limits),
            would_deny=sum(one.would_deny for one in limits),
            degraded=sum(one.degraded for one in limits),
            limits=[LimitReport(**one._asdict()) for one in limits],
            limits_hit=[one.limit for one in limits if one.denied],
            requests={
                "in_flight_seconds": total(IN_FLIGHT),
                **{one: total(f"requests.{one}") for one in STATUS_CLASSES},
            },
            jobs=JobsReport.model_validate(
                {name: total(f"jobs.{name}") for name in JobsReport.model_fields}
            ),
            quotas=[QuotaReport(**one._asdict()) for one in report.quotas],
        )


class UsageByTenant(_Answer):
    """A page of the report, by tenant."""

    since: Utc = Field(serialization_alias="from")
    to: Utc
    tenants: list[TenantInPeriod]
    next_cursor: str | None
