"""The parameters of paths and queries, each said once."""

from typing import Annotated

from fastapi import Path, Query

from partywall_service.api.schemas import Hostname
from partywall_service.ledger.records import OverrideKind, Status
from partywall_service.names import JOB_PATTERN, NAME_PATTERN, QUEUE_PATTERN, TENANT_PATTERN
from partywall_workers.records import Status as JobStatus

ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"

TenantPath = Annotated[
    str, Path(pattern=TENANT_PATTERN, description="The tenant's id.", examples=["acme"])
]
KindPath = Annotated[OverrideKind, Path(description="What the override is of.")]
NamePath = Annotated[
    str,
    Path(
        pattern=NAME_PATTERN,
        description=(
            "The limit or resource; for jobs `concurrency`, `max_queued`, `rate` or `queue`."
        ),
        examples=["requests"],
    ),
]
TokenPath = Annotated[
    str, Path(pattern=ID_PATTERN, description="The token's id.", examples=["3f9a0c51d2e7"])
]

ResourcePath = Annotated[
    str,
    Path(pattern=NAME_PATTERN, description="A resource that some tier names.", examples=["users"]),
]
ResourceFilter = Annotated[
    str | None, Query(pattern=NAME_PATTERN, description="Only changes of this resource.")
]
QueuePath = Annotated[
    str,
    Path(
        pattern=QUEUE_PATTERN,
        description="The tenant's id; for an admin also `_system` (maintenance), `_cron`.",
        examples=["acme"],
    ),
]
JobPath = Annotated[
    str, Path(pattern=JOB_PATTERN, description="The job's id.", examples=["welcome-4711"])
]
JobStatusFilter = Annotated[JobStatus | None, Query(description="Only jobs of this status.")]
TierQuery = Annotated[
    str, Query(pattern=NAME_PATTERN, description="A tier of the policy.", examples=["free"])
]

TierFilter = Annotated[
    str | None, Query(pattern=NAME_PATTERN, description="Only tenants of this tier.")
]
StatusFilter = Annotated[Status | None, Query(description="Only tenants of this status.")]
DomainFilter = Annotated[Hostname | None, Query(description="Only the tenant with this domain.")]
TenantFilter = Annotated[
    str | None, Query(pattern=TENANT_PATTERN, description="Only entries about this tenant.")
]
CursorQuery = Annotated[
    str | None,
    Query(max_length=1024, description="The `next_cursor` of the page before; opaque."),
]
PageSize = Annotated[int, Query(ge=1, le=1000, description="Items to a page, at most.")]
DEFAULT_PAGE = 100
