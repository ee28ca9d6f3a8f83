"""Recorded against counted: how far a level has drifted, and its repair.

A repair names the version that was recorded, so that a change in between is told and never lost.
"""

from collections.abc import Iterable
from typing import NamedTuple

from partywall_service.cli.client import Conflict, Sidecar
from partywall_service.cli.quotas_answers import TenantQuotas
from partywall_service.cli.quotas_items import Item, unit_fault
from partywall_service.policy.values import expected_one_of

REASON = "reconcile"
"""What the ledger says of a repair; the SDK's says the same."""


class Drift(NamedTuple):
    """One resource, recorded and counted.

    Attributes:
        resource: which.
        recorded: the level that Partywall has.
        counted: what there really is.
        version: of the level.
        fault: why it cannot be repaired; None where it can, or need not be.
    """

    resource: str
    recorded: int
    counted: int
    version: int
    fault: str | None

    @property
    def drift(self) -> int:
        """What the repair adds."""
        return self.counted - self.recorded

    @property
    def texts(self) -> tuple[str, str, str]:
        """Recorded, counted and drift as people read them; in full: one byte too many is drift."""
        drift = f"{self.drift:+,}" if self.drift else "0"
        return f"{self.recorded:,}", f"{self.counted:,}", drift


def item_fault(item: Item, quotas: TenantQuotas) -> str | None:
    """Why the tenant cannot have been counted so."""
    if item.resource not in quotas.units:
        return f"resource: {expected_one_of(quotas.units, item.resource)}"
    return unit_fault(item, quotas.units)


def drifts(items: Iterable[Item], quotas: TenantQuotas) -> list[Drift]:
    """Each item, which must be one of `quotas`, beside what is recorded."""
    states = {one.resource: one for one in quotas.quotas}
    found = []
    for item in items:
        state = states[item.resource]
        fault = None
        if item.version not in (None, state.version):
            fault = (
                f"{item.resource}: it has moved on from version {item.version} to "
                f"{state.version} since it was counted; count it again"
            )
        elif state.reserved and item.amount != state.used:
            # Its rows may be in the count already; the commit to come would have them twice.
            fault = (
                f"{item.resource}: {state.reserved:,} of it are reserved just now; count it again "
                "when none are, or use `partywall quotas set`"
            )
        found.append(Drift(item.resource, state.used, item.amount, state.version, fault))
    return found


def repair(api: Sidecar, tenant: str, drift: Drift) -> str | None:
    """Sets the level to what was counted; returns why not, if it has changed meanwhile.

    Raises:
        CliError: the sidecar cannot be asked, or refuses it for another cause.
    """
    body = {"used": drift.counted, "reason": REASON, "if_version": drift.version}
    try:
        api.put("tenants", tenant, "quotas", drift.resource, body=body)
    except Conflict:
        return f"{drift.resource}: it changed while it was repaired; count it again"
    return None
