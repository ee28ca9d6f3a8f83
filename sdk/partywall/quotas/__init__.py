"""Resource quotas: what a client can do with them, and what they answer."""

from partywall.quotas.reconcile import Count
from partywall.quotas.records import (
    Crossing,
    Drift,
    Excess,
    LedgerEntry,
    Period,
    Preview,
    Quota,
    QuotaOutcome,
    Settled,
    Unit,
)
from partywall.quotas.reservation import Reservation, Reserving
from partywall.quotas.sync import SyncReservation

__all__ = [
    "Count",
    "Crossing",
    "Drift",
    "Excess",
    "LedgerEntry",
    "Period",
    "Preview",
    "Quota",
    "QuotaOutcome",
    "Reservation",
    "Reserving",
    "Settled",
    "SyncReservation",
    "Unit",
]
