"""The fake sidecar's policy: what quotas.toml says of limits and features."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from limits import parse_many

from partywall.decision import Window
from partywall.errors import ConfigurationError
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT, TierFacts

Tiers = Mapping[str, Mapping[str, object]]
"""Tables as in quotas.toml, by tier: `limits` and `features`, and `extends`. `weight`, `quotas` and
`jobs` may be there, and say nothing here."""

SHIPPED_TIERS: Tiers = {
    "free": {"limits": {"requests": "100/minute"}},
    "pro": {
        "limits": {"requests": "1000/minute"},
        "features": ["advanced-analytics"],
    },
    "enterprise": {
        "limits": {"requests": "10000/minute"},
        "features": ["advanced-analytics", "audit-export"],
    },
}
"""The limits and features of the quotas.toml that Partywall ships."""

_KEYS = ("extends", "limits", "features", "weight", "quotas", "jobs")
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
    """A tier: `limits` has every name that some tier gives."""

    name: str
    features: tuple[str, ...]
    limits: Mapping[str, Limit]


@dataclass(frozen=True, slots=True)
class Policy:
    """All tiers in order, and what a tenant that nobody registered gets."""

    tiers: Mapping[str, Tier]
    default_tier: str | None

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


def read_policy(tiers: object, default_tier: object) -> Policy:
    """The policy that the tables describe.

    Raises:
        ConfigurationError: something in them cannot be; the message names it.
    """
    tables = _table("tiers", tiers)
    if not tables:
        raise ConfigurationError("tiers: expected at least one tier; got none")
    if default_tier is not None and default_tier not in tables:
        raise ConfigurationError(
            f"default_tier: expected one of {', '.join(tables)}, or None; got {default_tier!r}"
        )
    drafts = {name: _draft(name, tables, ()) for name in tables}
    names = list(dict.fromkeys(name for limits, _ in drafts.values() for name in limits))
    return Policy(
        {
            tier: Tier(tier, features, {name: limits.get(name, Limit()) for name in names})
            for tier, (limits, features) in drafts.items()
        },
        None if default_tier is None else str(default_tier),
    )


def _draft(
    name: str, tables: Mapping[str, object], below: tuple[str, ...]
) -> tuple[dict[str, Limit], tuple[str, ...]]:
    """The limits and features of a tier, with those of what it extends."""
    path = f"tiers.{name}"
    table = _table(path, tables[name])
    _known_keys(path, table, _KEYS)
    limits: dict[str, Limit] = {}
    features: tuple[str, ...] = ()
    base = table.get("extends")
    if base is not None:
        others = [other for other in tables if other not in (*below, name)]
        if base not in others:
            raise ConfigurationError(
                f"{path}.extends: expected one of {', '.join(others) or 'no tier'}; got {base!r}"
            )
        limits, features = _draft(str(base), tables, (*below, name))
    for limit, written in _table(f"{path}.limits", table.get("limits", {})).items():
        if not LIMIT_PATTERN.fullmatch(limit):
            raise ConfigurationError(
                f"{path}.limits: expected names of 1 to 64 letters, digits, '.', '_' or '-', the "
                f"first a letter or digit; got {limit!r}"
            )
        limits[limit] = _limit(f"{path}.limits.{limit}", written)
    if "features" in table:
        features = _features(f"{path}.features", table["features"])
    return limits, features


def _limit(path: str, written: object) -> Limit:
    if not isinstance(written, Mapping):
        return Limit(_rates(path, written))
    table = _table(path, written)
    _known_keys(path, table, _LIMIT_KEYS)
    enforce = table.get("enforce", True)
    if not isinstance(enforce, bool):
        raise ConfigurationError(f"{path}.enforce: expected true or false; got {enforce!r}")
    return Limit(_rates(f"{path}.rate", table.get("rate")), enforce)


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


def _table(path: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{path}: expected a table; got {value!r}")
    return value


def _known_keys(path: str, table: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{path}: expected {', '.join(known)}; got {key!r}")
