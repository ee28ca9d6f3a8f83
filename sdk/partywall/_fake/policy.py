"""The fake sidecar's policy: what quotas.toml says of limits, quotas, features and jobs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from limits import parse_many

from partywall._fake.amounts import (
    Allowance,
    Resource,
    known_keys,
    read_allowance,
    read_resource,
    table_of,
    valid_name,
)
from partywall.decision import Window
from partywall.errors import ConfigurationError
from partywall.protocol import MAX_AMOUNT, TierFacts
from partywall.quotas.records import Period

Tiers = Mapping[str, Mapping[str, object]]
"""Tables as in quotas.toml, by tier: `limits`, `quotas`, `features`, `extends`, and `max_queued` of
`jobs`. What else there is of `jobs`, and `weight`, may be there, and says nothing here."""

Resources = Mapping[str, Mapping[str, object]]
"""Tables as in quotas.toml, by resource: `durable` and `thresholds`."""

SHIPPED_TIERS: Tiers = {
    "free": {
        "limits": {"requests": "100/minute"},
        "quotas": {
            "users": 5,
            "projects": 3,
            "api_keys": 2,
            "storage": "1 GiB",
            "cache_keys": 100,
            "emails": {"limit": 500, "per": "month"},
        },
        "jobs": {"max_queued": 1000},
    },
    "pro": {
        "limits": {"requests": "1000/minute"},
        "features": ["advanced-analytics"],
        "quotas": {
            "users": 50,
            "projects": 25,
            "api_keys": 10,
            "storage": "50 GiB",
            "cache_keys": 1000,
            "emails": {"limit": 10000, "per": "month"},
        },
        "jobs": {"max_queued": 10000},
    },
    "enterprise": {
        "limits": {"requests": "10000/minute"},
        "features": ["advanced-analytics", "audit-export"],
        "quotas": {
            "users": "unlimited",
            "projects": "unlimited",
            "api_keys": "unlimited",
            "storage": "unlimited",
            "cache_keys": 10000,
            "emails": {"limit": 100000, "per": "month"},
        },
        "jobs": {"max_queued": "unlimited"},
    },
}
"""What the quotas.toml that Partywall ships says, as far as it counts here."""

SHIPPED_RESOURCES: Resources = {"cache_keys": {"durable": False}}
"""What that file says of resources."""

_KEYS = ("extends", "limits", "features", "weight", "quotas", "jobs")
_JOB_KEYS = ("concurrency", "max_queued", "rate", "queue")
_LIMIT_KEYS = ("rate", "enforce", "on_outage")


class Rate(NamedTuple):
    """At most `quota` cost in any interval of `window` seconds."""

    quota: int
    window: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a tier: its rates, shortest window first, none when unlimited."""

    rates: tuple[Rate, ...] = ()
    enforce: bool = True


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier: `limits` and `quotas` have every name that some tier gives.

    `max_queued` of a tenant's jobs may wait; None is unlimited.
    """

    name: str
    features: tuple[str, ...]
    limits: Mapping[str, Limit]
    quotas: Mapping[str, Allowance]
    max_queued: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """All tiers in order, and what a tenant that nobody registered gets."""

    tiers: Mapping[str, Tier]
    default_tier: str | None
    resources: Mapping[str, Resource]

    def facts(self, tier: str) -> TierFacts:
        """What an SDK is told of a tier."""
        own = self.tiers[tier].features
        upgrades: dict[str, str] = {}
        for further in self._after(tier):
            for feature in further.features:
                if feature not in own:
                    upgrades.setdefault(feature, further.name)
        return TierFacts(own, upgrades)

    def upgrade(self, tier: str, limit: str, cost: int, windows: Sequence[Window]) -> str | None:
        """The next tier that would have admitted `cost`, as the windows stand."""
        spent = {window.window: window.quota - window.remaining for window in windows}
        for further in self._after(tier):
            its = further.limits[limit]
            if not its.enforce or all(
                spent.get(rate.window, 0) + cost <= rate.quota for rate in its.rates
            ):
                return further.name
        return None

    def _after(self, tier: str) -> Iterable[Tier]:
        names = list(self.tiers)
        return [self.tiers[name] for name in names[names.index(tier) + 1 :]]


class _Draft(NamedTuple):
    """What a tier says, with what it extends."""

    limits: dict[str, Limit]
    quotas: dict[str, Allowance]
    features: tuple[str, ...]
    max_queued: int | None = None


def read_policy(tiers: object, default_tier: object, resources: object) -> Policy:
    """The policy that the tables describe.

    Raises:
        ConfigurationError: something in them cannot be; the message names it.
    """
    tables = table_of("tiers", tiers)
    if not tables:
        raise ConfigurationError("tiers: expected at least one tier; got none")
    if default_tier is not None and default_tier not in tables:
        raise ConfigurationError(
            f"default_tier: expected one of {', '.join(tables)}, or None; got {default_tier!r}"
        )
    drafts = {name: _draft(name, tables, ()) for name in tables}
    limits = list(dict.fromkeys(name for draft in drafts.values() for name in draft.limits))
    quotas = _unlimited(drafts.values())
    return Policy(
        {
            tier: Tier(
                tier,
                draft.features,
                {name: draft.limits.get(name, Limit()) for name in limits},
                {name: _timed(draft.quotas.get(name), lifted) for name, lifted in quotas.items()},
                draft.max_queued,
            )
            for tier, draft in drafts.items()
        },
        None if default_tier is None else str(default_tier),
        _resources(resources, list(quotas), drafts.values()),
    )


def _unlimited(drafts: Iterable[_Draft]) -> dict[str, Allowance]:
    """Every resource, unlimited, and in the period that the tiers agree on."""
    pers: dict[str, set[Period]] = {}
    for draft in drafts:
        for name, quota in draft.quotas.items():
            known = pers.setdefault(name, set())
            if quota.per is not None:
                known.add(quota.per)
    return {
        name: Allowance(None, per.pop() if len(per) == 1 else None) for name, per in pers.items()
    }


def _timed(quota: Allowance | None, lifted: Allowance) -> Allowance:
    """A quota without a period is counted by that of the other tiers."""
    return lifted if quota is None else replace(quota, per=quota.per or lifted.per)


def _resources(
    written: object, known: Sequence[str], drafts: Iterable[_Draft]
) -> dict[str, Resource]:
    tables = table_of("resources", written)
    for name in tables:
        if name not in known:
            raise ConfigurationError(
                f"resources.{name}: no tier has a quota of it; expected one of "
                f"{', '.join(known) or 'none'}"
            )
    # One size makes it bytes everywhere: other tiers' plain numbers are then bytes too.
    sizes = {name for draft in drafts for name, one in draft.quotas.items() if one.is_size}
    return {
        name: replace(
            read_resource(f"resources.{name}", tables.get(name, {})),
            unit="bytes" if name in sizes else "count",
        )
        for name in known
    }


def _draft(name: str, tables: Mapping[str, object], below: tuple[str, ...]) -> _Draft:
    """What a tier says, with what it extends."""
    path = f"tiers.{name}"
    table = table_of(path, tables[name])
    known_keys(path, table, _KEYS)
    draft = _Draft({}, {}, ())
    base = table.get("extends")
    if base is not None:
        others = [other for other in tables if other not in (*below, name)]
        if base not in others:
            raise ConfigurationError(
                f"{path}.extends: expected one of {', '.join(others) or 'no tier'}; got {base!r}"
            )
        draft = _draft(str(base), tables, (*below, name))
    for limit, written in table_of(f"{path}.limits", table.get("limits", {})).items():
        valid_name(f"{path}.limits", limit)
        draft.limits[limit] = _limit(f"{path}.limits.{limit}", written)
    for resource, written in table_of(f"{path}.quotas", table.get("quotas", {})).items():
        valid_name(f"{path}.quotas", resource)
        draft.quotas[resource] = read_allowance(f"{path}.quotas.{resource}", written)
    jobs = table_of(f"{path}.jobs", table.get("jobs", {}))
    known_keys(f"{path}.jobs", jobs, _JOB_KEYS)
    if "max_queued" in jobs:
        draft = draft._replace(max_queued=_count(f"{path}.jobs.max_queued", jobs["max_queued"]))
    if "features" in table:
        return draft._replace(features=_features(f"{path}.features", table["features"]))
    return draft


def _limit(path: str, written: object) -> Limit:
    if not isinstance(written, Mapping):
        return Limit(_rates(path, written))
    table = table_of(path, written)
    known_keys(path, table, _LIMIT_KEYS)
    enforce = table.get("enforce", True)
    if not isinstance(enforce, bool):
        raise ConfigurationError(f"{path}.enforce: expected true or false; got {enforce!r}")
    return Limit(_rates(f"{path}.rate", table.get("rate")), enforce)


def _count(path: str, written: object) -> int | None:
    if written == "unlimited" or (type(written) is int and written == -1):
        return None
    if type(written) is not int or not 0 <= written <= MAX_AMOUNT:
        raise ConfigurationError(
            f'{path}: expected a whole number from 0, or "unlimited"; got {written!r}'
        )
    return written


def _rates(path: str, written: object) -> tuple[Rate, ...]:
    if written == "unlimited" or (type(written) is int and written == -1):
        return ()
    texts = written if isinstance(written, list | tuple) else [written]
    try:
        # Of what is no text `str` makes none that could be a rate.
        items = [item for text in texts for item in parse_many(str(text))]
    except ValueError as exc:
        raise ConfigurationError(
            f'{path}: expected a rate such as "100/minute", a list of rates, or "unlimited"; '
            f"got {written!r}"
        ) from exc
    rates = sorted((Rate(item.amount, item.get_expiry()) for item in items), key=_length)
    if not rates or len({rate.window for rate in rates}) != len(rates):
        raise ConfigurationError(f"{path}: expected rates, each window once; got {written!r}")
    if not all(1 <= rate.quota <= MAX_AMOUNT for rate in rates):
        raise ConfigurationError(f"{path}: expected quotas from 1 to 2^53-1; got {written!r}")
    return tuple(rates)


def _length(rate: Rate) -> int:
    return rate.window


def _features(path: str, written: object) -> tuple[str, ...]:
    if not isinstance(written, list | tuple) or not all(isinstance(one, str) for one in written):
        raise ConfigurationError(f"{path}: expected a list of names; got {written!r}")
    return tuple(dict.fromkeys(written))
