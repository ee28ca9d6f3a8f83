"""The policy: what quotas.toml says, checked and frozen.

Everything here is immutable, so a reload swaps one object and no request sees half of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

OnOutage = Literal["local", "open", "closed"]
Period = Literal["day", "week", "month"]
Unit = Literal["count", "bytes"]

MAX_AMOUNT = 2**53 - 1
"""The largest cost, quota or amount: what JSON and Lua carry exactly."""


THRESHOLDS = (80, 95, 100)
"""Percents of a quota whose crossing is told where `[resources]` does not say others."""


class Rate(NamedTuple):
    """At most `quota` cost in any interval of `window` seconds."""

    quota: int
    window: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate limit: every window must have room. No rates: unlimited.

    Attributes:
        name: as quotas.toml names it.
        rates: its windows, no two of one length, shortest first; empty when unlimited.
        enforce: False observes without denying.
        on_outage: what answers while the shared store cannot.
    """

    name: str
    rates: tuple[Rate, ...]
    enforce: bool = True
    on_outage: OnOutage = "local"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of a resource a tenant may hold, or use in one calendar period (UTC).

    Attributes:
        resource: as quotas.toml names it.
        limit: in units of the resource (bytes for sizes); None when unlimited.
        per: the calendar period after which use refills; None for a level that is held.
    """

    resource: str
    limit: int | None
    per: Period | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """What a tier's background jobs may take; None lifts a cap, no rates lift the rate.

    Attributes:
        concurrency: of a tenant's jobs running at once.
        max_queued: waiting or deferred, not running.
        rates: job starts, shortest window first.
        queue: the queue they wait in, of those that workers serve; None is that of most tenants.
    """

    concurrency: int | None = None
    max_queued: int | None = None
    rates: tuple[Rate, ...] = ()
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """How a resource behaves, whatever the tier.

    Attributes:
        name: as quotas.toml names it.
        durable: every change is in PostgreSQL before it is acknowledged.
        unit: "bytes" where some tier writes its quota as a size.
        thresholds: percents of a quota whose crossing is told, ascending.
    """

    name: str
    durable: bool = True
    unit: Unit = "count"
    thresholds: tuple[int, ...] = THRESHOLDS


@dataclass(frozen=True, slots=True)
class Tier:
    """What a tier promises; `limits` and `quotas` hold every name some tier gives."""

    name: str
    weight: float = 1
    features: tuple[str, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=lambda: MappingProxyType({}))
    quotas: Mapping[str, Quota] = field(default_factory=lambda: MappingProxyType({}))
    jobs: Jobs = Jobs()


@dataclass(frozen=True, slots=True)
class Policy:
    """All tiers, in the file's order (which `upgrade` follows).

    Attributes:
        tiers: by name.
        default_tier: what a tenant that nobody registered gets; None refuses it.
        resources: every resource some tier or `[resources]` names.
        digest: SHA-256 of the text it was read from, in hexadecimal.
    """

    tiers: Mapping[str, Tier]
    default_tier: str | None
    resources: Mapping[str, Resource]
    digest: str

    @property
    def limit_names(self) -> frozenset[str]:
        """Every limit that some tier names; any other is unknown."""
        return frozenset().union(*(tier.limits for tier in self.tiers.values()))
