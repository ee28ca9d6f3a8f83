"""A tenant's tier and its overrides → what applies to it now. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from partywall_service.ledger.records import OverrideKind, OverrideRecord, OverrideValue
from partywall_service.policy.amounts import parse_amount, parse_count, parse_rates
from partywall_service.policy.errors import UnknownName
from partywall_service.policy.model import Jobs, Limit, Policy, Quota, Tier
from partywall_service.policy.values import read_queue

__all__ = ["JOB_SETTINGS", "Effective", "UnknownName", "check_override", "resolve"]

_JOBS: Mapping[str, tuple[str, Callable[[object], Any]]] = {
    "concurrency": ("concurrency", parse_count),
    "max_queued": ("max_queued", parse_count),
    "rate": ("rates", parse_rates),
    "queue": ("queue", read_queue),
}

JOB_SETTINGS = tuple(_JOBS)
"""What an override of jobs can be of."""


@dataclass(frozen=True, slots=True)
class Effective:
    """What applies to one tenant.

    Attributes:
        tier: its tier, as the policy has it.
        limits: every limit that some tier names.
        quotas: every resource that some tier names.
        jobs: what its background jobs may take.
        valid_until: epoch seconds at which the first override ends; None while none does.
    """

    tier: Tier
    limits: Mapping[str, Limit]
    quotas: Mapping[str, Quota]
    jobs: Jobs
    valid_until: float | None


def resolve(tier: Tier, overrides: Sequence[OverrideRecord], now: datetime) -> Effective:
    """The tier with the overrides that have not ended.

    An override beats the tier's value and keeps the rest: a limit's `enforce` and `on_outage`, a
    quota's period. One that names what no tier names any more, or whose value the policy cannot
    read, is left out: it was checked when it was made, so the policy has changed since.
    """
    limits = dict(tier.limits)
    quotas = dict(tier.quotas)
    jobs: dict[str, Any] = {}
    ends = []
    for one in overrides:
        if one.expires_at is not None and one.expires_at <= now:
            continue
        try:
            if one.kind == "limits" and one.name in limits:
                limits[one.name] = replace(limits[one.name], rates=parse_rates(one.value))
            elif one.kind == "quotas" and one.name in quotas:
                quotas[one.name] = replace(quotas[one.name], limit=parse_amount(one.value))
            elif one.kind == "jobs" and one.name in _JOBS:
                field, read = _JOBS[one.name]
                jobs[field] = read(one.value)
            else:
                continue
        except ValueError:
            continue
        if one.expires_at is not None:
            ends.append(one.expires_at.timestamp())
    return Effective(
        tier=tier,
        limits=MappingProxyType(limits),
        quotas=MappingProxyType(quotas),
        jobs=replace(tier.jobs, **jobs),
        valid_until=min(ends, default=None),
    )


def check_override(policy: Policy, kind: OverrideKind, name: str, value: OverrideValue) -> None:
    """Refuses an override that could not apply.

    Raises:
        UnknownName: no tier names this limit or resource.
        ValueError: the name of a jobs setting, or the value, is none; with what was expected.
    """
    if kind == "jobs":
        if name not in _JOBS:
            raise ValueError(f"expected one of {', '.join(_JOBS)}; got {name!r}")
        _JOBS[name][1](value)
        return
    known = policy.limit_names if kind == "limits" else policy.resources
    if name not in known:
        raise UnknownName(kind, name)
    if kind == "limits":
        parse_rates(value)
    else:
        parse_amount(value)
