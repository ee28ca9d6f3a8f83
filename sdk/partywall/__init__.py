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
    SidecarError,
    SidecarUnavailable,
    TenantConflict,
    TenantRefused,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownLimit,
    UnknownTenant,
)
from partywall.middleware import PartywallMiddleware
from partywall.records import Check, TenantRecord
from partywall.responses import Denial
from partywall.rules import Rule
from partywall.sync import SyncPartywall

__all__ = [
    "Check",
    "ConfigurationError",
    "Conflict",
    "Decision",
    "Denial",
    "Denied",
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
    "Rule",
    "SidecarError",
    "SidecarUnavailable",
    "SyncPartywall",
    "Tenant",
    "TenantConflict",
    "TenantRecord",
    "TenantRefused",
    "Unauthenticated",
    "UnexpectedAnswer",
    "UnknownLimit",
    "UnknownTenant",
    "Window",
    "current_tenant",
    "in_tenant_context",
    "running_as",
]
