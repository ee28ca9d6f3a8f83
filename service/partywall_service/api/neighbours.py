"""Who is noisy and who suffers, and what was told of it."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from partywall_service.api.deps import Admin, AuthenticatedRoute, Host, PartsDep
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import DEFAULT_PAGE, CursorQuery, PageSize
from partywall_service.api.schemas import Utc
from partywall_service.names import WINDOW_PATTERN
from partywall_service.usage.meters import MICROSECONDS
from partywall_service.usage.notices import Kept, Status
from partywall_service.usage.verdict import Neighbour as Judged
from partywall_service.usage.verdict import Resource, Verdict

router = APIRouter(prefix="/v1", tags=["usage"], route_class=AuthenticatedRoute)

WindowQuery = Annotated[
    str,
    Query(
        pattern=WINDOW_PATTERN,
        description="How far back: `1m` to `1440m`, or `1h` to `24h`.",
        examples=["15m", "1h", "24h"],
    ),
]
TopQuery = Annotated[int, Query(ge=1, le=1000, description="How many tenants, at most.")]

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_cursor: Cursor[tuple[datetime, str]] = Cursor(
    "notices", tuple[_Instant, Annotated[str, msgspec.Meta(pattern="^[0-9a-f-]{36}$")]]
)


class Neighbour(BaseModel):
    """A tenant with its verdict."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    tier: str
    requests: int = Field(description="Decisions of all its limits.")
    denied: int
    in_flight_seconds: float = Field(description="Time that its requests were in flight.")
    job_run_seconds: float = Field(description="Time that its jobs ran.")
    share: float = Field(ge=0, le=1, description="Of the resource that it is judged by.")
    fair_share: float = Field(
        ge=0, le=1, description="Of the same, by weight among those active in it."
    )
    resource: Resource = Field(description="By which it is judged.")
    verdict: Verdict
    reason: str = Field(description="Why, in a sentence.")
    requests_share: float = Field(ge=0, le=1)
    in_flight_share: float = Field(ge=0, le=1)
    jobs_share: float = Field(ge=0, le=1)

    @classmethod
    def of(cls, one: Judged) -> Self:
        """A verdict as clients see it."""
        return cls(
            tenant=one.tenant,
            tier=one.tier,
            requests=one.requests,
            denied=one.denied,
            in_flight_seconds=one.in_flight_us / MICROSECONDS,
            job_run_seconds=one.job_run_us / MICROSECONDS,
            share=one.share,
            fair_share=one.fair_share,
            resource=one.resource,
            verdict=one.verdict,
            reason=one.reason,
            requests_share=one.requests_share,
            in_flight_share=one.in_flight_share,
            jobs_share=one.jobs_share,
        )


class Neighbours(BaseModel):
    """Those with the largest shares, the largest first."""

    model_config = ConfigDict(frozen=True)

    tenants: list[Neighbour]
    next_cursor: None


class Notice(BaseModel):
    """A notice, as webhooks get it, and what became of it."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: str
    at: Utc
    tenant: str | None
    data: dict[str, Any]
    status: Status = Field(
        description="`unsent`: there are no webhooks; `failed`: it is not tried again."
    )
    attempts: int
    delivered_at: Utc | None
    error: str | None = Field(description="What the last try came to, where it failed.")

    @classmethod
    def of(cls, one: Kept) -> Self:
        """A record as clients see it."""
        return cls(
            id=one.id,
            type=one.kind,
            at=one.at,
            tenant=one.tenant,
            data=one.body["data"],
            status=one.status,
            attempts=one.attempts,
            delivered_at=one.delivered_at,
            error=one.error,
        )


class Notices(BaseModel):
    """A page of notices, newest first."""

    model_config = ConfigDict(frozen=True)

    notices: list[Notice]
    next_cursor: str | None


@router.get("/reports/neighbors", summary="Say who is noisy and who suffers", responses=problems())
async def report_neighbors(
    parts: PartsDep, _: Host, window: WindowQuery = "1h", top: TopQuery = 20
) -> Neighbours:
    """Each active tenant's share of what all took, against its fair share; the largest first.

    The minute that runs is included. Where there are thousands of tenants an answer may be some
    seconds old.
    """
    number, unit = int(window[:-1]), window[-1]
    span = timedelta(hours=number) if unit == "h" else timedelta(minutes=number)
    judged = await parts.usage.neighbours.judge(span)
    return Neighbours(tenants=[Neighbour.of(one) for one in judged[:top]], next_cursor=None)


@router.get("/notices", summary="List notices", responses=problems())
async def list_notices(
    parts: PartsDep, _: Admin, cursor: CursorQuery = None, page_size: PageSize = DEFAULT_PAGE
) -> Notices:
    """What was found and told, newest first, and whether the webhooks have it; for 30 days."""
    rows = await parts.usage.notices.list(after=_cursor.decode(cursor), limit=page_size + 1)
    page, next_cursor = _cursor.page(rows, page_size, lambda row: (row.at, row.id))
    return Notices(notices=[Notice.of(row) for row in page], next_cursor=next_cursor)
