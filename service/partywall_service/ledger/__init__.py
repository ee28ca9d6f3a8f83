"""What PostgreSQL keeps: tenants, overrides, tokens and the audit log."""

from partywall_service.ledger.changes import Change
from partywall_service.ledger.engine import create_ledger_engine
from partywall_service.ledger.errors import (
    DomainsTaken,
    DomainTaken,
    LedgerError,
    LedgerUnavailable,
    TenantMissing,
)
from partywall_service.ledger.listener import listen
from partywall_service.ledger.records import AuditEntry, OverrideRecord, TenantRecord, TokenRecord
from partywall_service.ledger.registration import Registered, Registration
from partywall_service.ledger.store import Ledger

__all__ = [
    "AuditEntry",
    "Change",
    "DomainTaken",
    "DomainsTaken",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "OverrideRecord",
    "Registered",
    "Registration",
    "TenantMissing",
    "TenantRecord",
    "TokenRecord",
    "create_ledger_engine",
    "listen",
]
