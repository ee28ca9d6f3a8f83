"""Partywall's SDK: what a host app installs."""

from partywall.client import Partywall
from partywall.context import Tenant, current_tenant, in_tenant_context, running_as
from partywall.decision import Decision, Window
from partywall.errors import (
    ConfigurationError,
    Conflict,
    Denied,
    FeatureMissing,
    Forbidden,
    InvalidCredentials,
    InvalidRequest,
    KeysUnavailable,
    LimitExceeded,
    NoTenant,
    NotFound,
    PartywallError,
    QuotaExceeded,
    SidecarError,
    SidecarUnavailable,
    TenantConflict,
    TenantRefused,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownLimit,
    UnknownReservation,
    UnknownResource,
    UnknownTenant,
)
from partywall.middleware import PartywallMiddleware
from partywall.quotas import (
    Crossing,
    Drift,
    Quota,
    QuotaOutcome,
    Reservation,
    SyncReservation,
)
from partywall.records import Check, TenantRecord
from partywall.responses import Denial
from partywall.rules import Rule
from partywall.sync import SyncPartywall

__all__ = [
    "Check",
    "ConfigurationError",
    "Conflict",
    "Crossing",
    "Decision",
    "Denial",
    "Denied",
    "Drift",
    "FeatureMissing",
    "Forbidden",
    "InvalidCredentials",
    "InvalidRequest",
    "KeysUnavailable",
    "LimitExceeded",
    "NoTenant",
    "NotFound",
    "Partywall",
    "PartywallError",
    "PartywallMiddleware",
    "Quota",
    "QuotaExceeded",
    "QuotaOutcome",
    "Reservation",
    "Rule",
    "SidecarError",
    "SidecarUnavailable",
    "SyncPartywall",
    "SyncReservation",
    "Tenant",
    "TenantConflict",
    "TenantRecord",
    "TenantRefused",
    "Unauthenticated",
    "UnexpectedAnswer",
    "UnknownLimit",
    "UnknownReservation",
    "UnknownResource",
    "UnknownTenant",
    "Window",
    "current_tenant",
    "in_tenant_context",
    "running_as",
]
