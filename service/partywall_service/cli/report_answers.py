"""The report as the sidecar answers it, and sums over it."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions; degraded ones are among the others, too."""

    admitted: int = 0
    denied: int = 0
    would_deny: int = 0
    degraded: int = 0


class Limit(Counts, frozen=True, kw_only=True):
    """One limit's."""

    limit: str


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """Background jobs; times in seconds."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    run_seconds: float = 0
    wait_seconds: float = 0


class Quota(msgspec.Struct, frozen=True):
    """What is used of a resource, and how long it lasts."""

    resource: str
    unit: str
    used: int | None
    limit: int | None
    days_until_full: float | None


class Tenant(Counts, frozen=True, kw_only=True):
    """One tenant in the period; its decisions are the sum over its limits."""

    tenant: str
    name: str | None
    tier: str | None
    status: str | None
    limits: list[Limit]
    limits_hit: list[str]
    requests: dict[str, int | float]
    jobs: Jobs
    quotas: list[Quota]


class Tier(Counts, frozen=True, kw_only=True):
    """All tenants of a tier."""

    tier: str | None
    tenants: int
    limits: list[Limit]
    limits_hit: list[str]
    requests: dict[str, int | float]
    jobs: Jobs


def by_tier(tenants: Iterable[Tenant]) -> list[Tier]:
    """The sums of each tier, by name."""
    groups: dict[str | None, list[Tenant]] = {}
    for one in tenants:
        groups.setdefault(one.tier, []).append(one)
    return [_tier(name, groups[name]) for name in sorted(groups, key=lambda name: name or "")]


def _tier(name: str | None, tenants: Sequence[Tenant]) -> Tier:
    names = sorted({limit.limit for one in tenants for limit in one.limits})
    limits = [
        Limit(
            limit=name,
            **_summed(Counts, [it for one in tenants for it in one.limits if it.limit == name]),
        )
        for name in names
    ]
    classes = dict.fromkeys(key for one in tenants for key in one.requests)
    return Tier(
        tier=name,
        tenants=len(tenants),
        **_summed(Counts, tenants),
        limits=limits,
        limits_hit=[one.limit for one in limits if one.denied],
        requests={key: sum(one.requests.get(key, 0) for one in tenants) for key in classes},
        jobs=Jobs(**_summed(Jobs, [one.jobs for one in tenants])),
    )


def _summed(kind: type[msgspec.Struct], several: Sequence[msgspec.Struct]) -> dict[str, Any]:
    """Each number of such structs, added up."""
    names = kind.__struct_fields__
    return {name: sum(getattr(one, name) for one in several) for name in names}
