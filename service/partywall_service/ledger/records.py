"""What the ledger hands out: plain frozen records, so nothing above it knows SQL."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Status = Literal["provisioning", "active", "suspended"]
OverrideKind = Literal["limits", "quotas", "jobs"]
OverrideValue = str | int


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A registered tenant; instants are UTC."""

    tenant: str
    name: str
    tier: str
    status: Status
    domains: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OverrideRecord:
    """One tenant's exception to its tier; `expires_at` None lasts until it is deleted."""

    tenant: str
    kind: OverrideKind
    name: str
    value: OverrideValue
    expires_at: datetime | None
    reason: str
    author: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token without its secret; `scope` is `admin`, `host` or `tenant:<id>`."""

    id: str
    scope: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One admin change: who did what to which tenant (None: to none in particular)."""

    id: int
    at: datetime
    actor: str
    action: str
    tenant: str | None
    detail: Mapping[str, Any]
