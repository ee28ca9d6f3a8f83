"""How an SDK process leases permits in batches, and reports what it did: the messages.

`POST /v1/permits` leases, `POST /v1/usage` reports.

The SDK's own business, and the sidecar's: both are of one distribution, but may be of different
versions for the length of a deployment, so unknown fields are ignored and new ones have defaults.

Time: a permit's `seconds` are counted from before its request was sent. Units that were granted are
charged by the sidecar to the end of that time, so a unit spent within it is never spent later than
it was charged (docs/design.md, "Permits").
"""

import re
from typing import Annotated

import msgspec

from partywall.decision import Reason, Window

MAX_ITEMS = 1000
"""Asks, and as many returns, that one request may carry."""

LONGEST_HOLD = 0.4
"""Seconds that a denial, or any answer that charges nothing, may be held without asking again: a
raised limit or a suspension is known to every sidecar within 0.5 s, so to every SDK within one."""

LONGEST_HORIZON = 0.5
"""Seconds: the longest that units may be spent after they were asked for."""

SHORTEST_HORIZON = 0.025
"""Seconds that units needed at once may be spent for, at least."""

MAX_AMOUNT = 2**53 - 1
"""The largest cost: what JSON and Lua carry exactly."""

LIMIT_PATTERN = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a limit's name fully matches."""

TenantField = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, description="The tenant's id.")
]
LimitField = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, description="A limit that some tier names.")
]
Units = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
LeaseId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
MeterField = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, description="What is counted.")
]
Increment = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]


def horizon(shortest_window: int) -> float:
    """Seconds for which units leased ahead may be spent: a twentieth of a limit's shortest window.

    A lease is charged to its end, so this is the share of throughput that leasing may cost.
    """
    return min(LONGEST_HORIZON, shortest_window / 20)


class Ask(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
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
    ahead: Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)] = 0
    lease: LeaseId | None = None


class GiveBack(msgspec.Struct, frozen=True, gc=False):
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
        within: seconds, counted from before the request is sent, within which units that are needed
            at once will be spent. They are charged to the end of that time, so it should be some
            round trips and no more; each limit's horizon bounds it.
    """

    instance: LeaseId
    asks: list[Ask] = []
    returns: list[GiveBack] = []
    within: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_HORIZON)] = SHORTEST_HORIZON


class Permit(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
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
        would_deny: allowed only because the limit, or the tier, is observed and not enforced.
    """

    allowed: bool
    tier: str | None = None
    reason: Reason | None = None
    degraded: bool = False
    granted: int = 0
    seconds: float = 0.0
    leased: bool = False
    retry_after: float | None = 0.0
    upgrade: str | None = None
    windows: tuple[Window, ...] = ()
    would_deny: bool = False


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


class TenantUsage(msgspec.Struct, frozen=True, gc=False):
    """What one tenant's meters rose by.

    Attributes:
        tenant: the tenant's id.
        meters: by meter, `limits.<name>.admitted|denied|would_deny|degraded`, `requests.2xx` to
            `requests.5xx` or `requests.in_flight_seconds`: the rise since the report before this
            one. A count, or microseconds where the meter's name says seconds.
    """

    tenant: TenantField
    meters: dict[MeterField, Increment]


class UsageReport(msgspec.Struct, frozen=True):
    """What one SDK process counted, as increments: applied once, however often it is sent.

    A process has one report under way at a time, and sends it unchanged, but for its age, until it
    is answered; only then it makes the next one, with the next number.

    Attributes:
        instance: the process's own id, as in `PermitsRequest`.
        sequence: the report's number, from 1.
        age: seconds since the oldest count in it. What a tenant did before it was erased is
            dropped by that.
        usage: no two of one tenant.
    """

    instance: LeaseId
    sequence: Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
    age: Annotated[float, msgspec.Meta(ge=0)]
    usage: Annotated[list[TenantUsage], msgspec.Meta(max_length=MAX_ITEMS)]


class UsageAnswer(msgspec.Struct, frozen=True):
    """A report's answer.

    Attributes:
        applied: tenants that were applied, by this sending or an earlier one; the others are
            unknown to the sidecar, or were erased.
    """

    applied: int
