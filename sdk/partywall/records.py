"""What clients send and receive, typed (docs/contract.md section 4)."""

from datetime import datetime
from typing import Literal

import msgspec

from partywall.errors import InvalidRequest
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT, MAX_ITEMS
from partywall.tenants import is_tenant_id

Status = Literal["provisioning", "active", "suspended"]


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several checks.

    Attributes:
        tenant: the tenant's id.
        limit: a limit that some tier names.
        cost: in the limit's own units, a whole number from 1.
        dry_run: only look: nothing is charged.
    """

    tenant: str
    limit: str = "requests"
    cost: int = 1
    dry_run: bool = False


CheckLike = Check | tuple[str] | tuple[str, str] | tuple[str, str, int]
"""A check, or its tenant, limit and cost."""


class TenantRecord(msgspec.Struct, frozen=True):
    """A registered tenant.

    Attributes:
        id: its id; `tenant` in the API.
        name: for people.
        tier: its tier.
        status: a suspended one is denied everything.
        domains: host names, in lower case, that are its own.
        features: its tier's.
        created_at: when it was registered, in UTC.
        updated_at: when it was last changed, in UTC.
    """

    id: str = msgspec.field(name="tenant")
    name: str
    tier: str
    status: Status
    domains: tuple[str, ...]
    features: tuple[str, ...]
    created_at: datetime
    updated_at: datetime

    def __str__(self) -> str:
        return self.id


class TenantChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `PUT /v1/tenants/{t}` takes; what is left out is kept."""

    tier: str
    name: str | None = None
    domains: list[str] | None = None
    status: Status | None = None


class TenantPage(msgspec.Struct, frozen=True):
    """A page of tenants."""

    tenants: list[TenantRecord]


def checks_of(asked: list[CheckLike]) -> list[Check]:
    """The checks, each valid.

    Raises:
        InvalidRequest: one is not, or there are too many; nothing was sent.
    """
    if len(asked) > MAX_ITEMS:
        raise InvalidRequest(f"expected at most {MAX_ITEMS} checks; got {len(asked)}")
    checks = []
    for place, item in enumerate(asked):
        if isinstance(item, tuple) and 1 <= len(item) <= 3:
            check = Check(*item)
        elif isinstance(item, Check):
            check = item
        else:
            raise invalid(f"[{place}]", "expected a Check, or (tenant, limit, cost)", item)
        valid_check(check.tenant, check.limit, check.cost, at=f"[{place}].")
        checks.append(check)
    return checks


def valid_check(tenant: str, limit: str, cost: int, *, at: str = "") -> None:
    """Refuses what no sidecar would understand, before it is sent.

    Raises:
        InvalidRequest: the tenant, the limit or the cost can be none.
    """
    valid_tenant(tenant, at=at)
    if not isinstance(limit, str) or LIMIT_PATTERN.fullmatch(limit) is None:
        raise invalid(f"{at}limit", name_of(64, "a limit's name"), limit)
    if not isinstance(cost, int) or isinstance(cost, bool) or not 1 <= cost <= MAX_AMOUNT:
        raise invalid(f"{at}cost", f"expected a whole number from 1 to {MAX_AMOUNT}", cost)


def valid_tenant(tenant: str, *, at: str = "") -> None:
    """Refuses what can be no tenant's id.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(tenant, str) or not is_tenant_id(tenant):
        raise invalid(f"{at}tenant", name_of(128, "a tenant's id"), tenant)


def name_of(longest: int, what: str) -> str:
    """What was expected where a name is none."""
    return (
        f"expected {what}: 1 to {longest} letters, digits, '.', '_' or '-', "
        "the first a letter or digit"
    )


def invalid(field: str, expected: str, got: object) -> InvalidRequest:
    """The error of one field, raised before anything is sent."""
    shown = ascii(got)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    reason = f"{expected}; got {shown}"
    return InvalidRequest(f"{field}: {reason}", [(field, reason)])
