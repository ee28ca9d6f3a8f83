"""`POST /v1/permits`: how an SDK process leases permits in batches.

The SDK's own business, and the sidecar's: both are of one distribution, but may be of different
versions for the length of a deployment, so unknown fields are ignored and new ones have defaults.

Time: a permit's `seconds` are counted from before its request was sent. Units that were granted are
charged by the sidecar to the end of that time, so a unit spent within it is never spent later than
it was charged (docs/design.md, "Permits").
"""

from typing import Annotated, Literal

import msgspec

from partywall.decision import Window

MAX_ITEMS = 1000
"""Asks, and as many returns, that one request may carry."""

LONGEST_HOLD = 0.4
"""Seconds that a denial, or any answer that charges nothing, may be held without asking again: a
raised limit or a suspension is known to every sidecar within 0.5 s, so to every SDK within one."""

PermitReason = Literal[
    "limit-exceeded", "tenant-suspended", "unknown-tenant", "unknown-limit", "unavailable"
]

_MAX_AMOUNT = 2**53 - 1
TenantField = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, description="The tenant's id.")
]
LimitField = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, description="A limit that some tier names.")
]
Units = Annotated[int, msgspec.Meta(ge=1, le=_MAX_AMOUNT)]
LeaseId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one tenant's waiting checks of one limit need.

    Attributes:
        tenant: the tenant's id.
        limit: the limit.
        cost: of the check that has waited longest; fewer units are of no use.
        need: the cost of all waiting checks together, at least `cost`.
        ahead: further units, for checks that will come before the permit ends.
        lease: an id of the asker's own making, never used twice; what is granted ahead is returned
            by it. Needed where `ahead` is above 0.
    """

    tenant: TenantField
    limit: LimitField
    cost: Units = 1
    need: Units = 1
    ahead: Annotated[int, msgspec.Meta(ge=0, le=_MAX_AMOUNT)] = 0
    lease: LeaseId | None = None


class GiveBack(msgspec.Struct, frozen=True):
    """Units of a lease that were not spent. Applied once, however often it is sent."""

    tenant: TenantField
    limit: LimitField
    lease: LeaseId
    units: Units


class PermitsRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks and returns of one SDK process; returns are applied first.

    Attributes:
        instance: the process's own id, by which the sidecars count who shares a quota.
        asks: no two of one tenant and limit, by convention: join them instead.
        returns: of this process's earlier leases.
    """

    instance: LeaseId
    asks: list[Ask] = []
    returns: list[GiveBack] = []


class Permit(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one ask.

    Attributes:
        allowed: whether the longest-waiting check may go on.
        tier: the tenant's tier; None when the tenant is unknown.
        reason: why not; `unavailable` where the store is away and the limit says `closed`.
        degraded: decided without the shared store.
        granted: units to spend within `seconds`, counted from before the request was sent. 0 and
            allowed: no units are counted (unlimited, observed only, or open in an outage), and the
            answer holds for `seconds`.
        seconds: how long the units may be spent, or the answer held; 0 is for this once.
        leased: whether unspent units can be given back, by the ask's `lease`.
        retry_after: as in a decision.
        upgrade: for a denial by the limit, the next tier that would have admitted it.
        windows: as they stood after `granted` was charged.
    """

    allowed: bool
    tier: str | None = None
    reason: PermitReason | None = None
    degraded: bool = False
    granted: int = 0
    seconds: float = 0.0
    leased: bool = False
    retry_after: float | None = 0.0
    upgrade: str | None = None
    windows: tuple[Window, ...] = ()


class TierFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an SDK needs to know of a tier.

    Attributes:
        features: what it has.
        upgrades: for each feature that it lacks and a later tier has: the first such tier.
    """

    features: tuple[str, ...] = ()
    upgrades: dict[str, str] = {}


class PermitsAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answers, in the order of the asks.

    Attributes:
        permits: one for each ask.
        tiers: facts of every tier that `permits` names.
        instances: SDK processes seen alive, at least 1: who shares the quotas in an outage.
    """

    permits: list[Permit]
    tiers: dict[str, TierFacts] = {}
    instances: int = 1
