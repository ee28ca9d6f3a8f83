"""Quotas as FastAPI's endpoints take and give them (docs/contract.md section 4, Quotas)."""

from typing import Annotated, Self

from fastapi import Header
from pydantic import BaseModel, ConfigDict, Field

from partywall_service.api.quota_bodies import KEY_HEADER, KEY_MEANS, KEY_PATTERN
from partywall_service.api.schemas import Reason, Utc
from partywall_service.policy.model import MAX_AMOUNT, Period, Unit
from partywall_service.quotas.service import Preview, Standings
from partywall_service.quotas.store import LedgerEntry

Key = Annotated[str | None, Header(alias=KEY_HEADER, pattern=KEY_PATTERN, description=KEY_MEANS)]


class Quota(BaseModel):
    """One quota as it stands; limit and remaining are null when it is unlimited."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    resource: str
    unit: Unit
    limit: int | None
    used: int
    reserved: int
    remaining: int | None
    period: Period | None
    resets_at: Utc | None
    version: int
    crossed: int | None = Field(description="The highest threshold crossed, in percent.")
    crossed_at: Utc | None


class TenantQuotas(BaseModel):
    """Every resource that some tier names, as it stands with one tenant."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    tier: str
    quotas: list[Quota]

    @classmethod
    def of(cls, tenant: str, standings: Standings) -> Self:
        """What was read, as clients see it."""
        quotas = [Quota.model_validate(state) for state in standings.quotas]
        return cls(tenant=tenant, tier=standings.tier, quotas=quotas)


class QuotaLevel(BaseModel):
    """What is really used of a resource."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"used": 42, "reason": "counted", "if_version": 17}]},
    )

    used: int = Field(ge=0, le=MAX_AMOUNT, description="The real count.")
    reason: Reason | None = Field(None, description="For the ledger: why.")
    if_version: int | None = Field(
        None, ge=0, le=MAX_AMOUNT, description="The version at which it was counted."
    )


class LedgerLine(BaseModel):
    """One change of a level; the deltas of a resource sum to its level."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    at: Utc
    resource: str
    operation: str
    delta: int
    used: int
    actor: str
    idempotency_key: str | None
    reason: str | None

    @classmethod
    def of(cls, entry: LedgerEntry) -> Self:
        """A line as clients see it."""
        return cls.model_validate(entry)


class LedgerLines(BaseModel):
    """A page of one tenant's ledger, newest first."""

    model_config = ConfigDict(frozen=True)

    entries: list[LedgerLine]
    next_cursor: str | None


class Over(BaseModel):
    """A resource of which more is used than the tier would give."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    resource: str
    used: int
    limit: int
    excess: int


class TierPreview(BaseModel):
    """What a tenant would have too much of on another tier."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)

    tenant: str
    from_: str = Field(serialization_alias="from", description="Its tier.")
    to: str
    over: list[Over]

    @classmethod
    def of(cls, tenant: str, preview: Preview) -> Self:
        """A preview as clients see it."""
        over = [Over.model_validate(one) for one in preview.over]
        return cls(tenant=tenant, from_=preview.tier, to=preview.to, over=over)
