"""quotas.toml → Policy: every error found at once, each with its table path."""

import hashlib
import math
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from partywall_service.names import is_name
from partywall_service.policy.amounts import is_size, parse_amount, parse_count, parse_rates
from partywall_service.policy.errors import PolicyError, PolicyFault
from partywall_service.policy.model import (
    Jobs,
    Limit,
    OnOutage,
    Period,
    Policy,
    Quota,
    Rate,
    Resource,
    Tier,
)

__all__ = ["PolicyError", "PolicyFault", "load_policy", "parse_policy"]

T = TypeVar("T")
Table = Mapping[str, Any]


def load_policy(path: Path) -> Policy:
    """Reads the policy file.

    Raises:
        PolicyError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        reason = f"cannot be read: {exc.strerror or exc}"
        raise PolicyError(PolicyFault(str(path), "", reason)) from exc
    except UnicodeDecodeError as exc:
        reason = f"expected UTF-8; byte {exc.start} is none"
        raise PolicyError(PolicyFault(str(path), "", reason)) from exc
    return parse_policy(text, str(path))


def parse_policy(text: str, source: str) -> Policy:
    """Reads a policy.

    Args:
        text: TOML, as CONTRACT section 3 describes it.
        source: what errors call it.

    Raises:
        PolicyError: with every fault there is.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise PolicyError(PolicyFault(source, "", f"expected TOML: {exc}")) from exc
    reader = _Reader(source)
    policy = reader.policy(document, hashlib.sha256(text.encode()).hexdigest())
    if policy is None or reader.faults:
        raise PolicyError(*reader.faults)
    return policy


@dataclass(slots=True)
class _Draft:
    """A tier as written, before it has what it extends."""

    extends: str | None = None
    weight: float | None = None
    features: tuple[str, ...] | None = None
    limits: dict[str, Limit] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)

    def over(self, base: "_Draft") -> "_Draft":
        """This one with everything it does not say itself taken from `base`."""
        return _Draft(
            extends=None,
            weight=base.weight if self.weight is None else self.weight,
            features=base.features if self.features is None else self.features,
            limits=base.limits | self.limits,
            quotas=base.quotas | self.quotas,
            jobs=base.jobs | self.jobs,
        )


class _Reader:
    """Walks the document; a fault is noted and the walk goes on."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sizes: set[str] = set()
        self.faults: list[PolicyFault] = []

    def policy(self, document: Table, digest: str) -> Policy | None:
        self._known_keys("", document, ("default_tier", "tiers", "resources"))
        tables = self._table("tiers", document.get("tiers", {}))
        if not tables and "tiers" not in [fault.path for fault in self.faults]:
            self._fault("tiers", "expected at least one tier, as [tiers.free]")
        drafts = {
            name: self._draft(_join("tiers", name), table)
            for name, table in self._named("tiers", tables)
        }
        default = document.get("default_tier")
        if default is not None and not (isinstance(default, str) and default in tables):
            self._fault("default_tier", _expected_one_of(tables, default))
            default = None
        whole = {name: self._extended(name, drafts) for name in drafts}
        resources = self._resources(document.get("resources", {}), whole.values())
        if self.faults:
            return None
        limit_names = list(dict.fromkeys(name for draft in whole.values() for name in draft.limits))
        tiers = {name: _tier(name, draft, limit_names, resources) for name, draft in whole.items()}
        return Policy(
            tiers=MappingProxyType(tiers),
            default_tier=default,
            resources=MappingProxyType(resources),
            digest=digest,
        )

    def _draft(self, path: str, value: object) -> _Draft:
        table = self._table(path, value)
        self._known_keys(path, table, ("extends", "weight", "features", "limits", "quotas", "jobs"))
        draft = _Draft()
        if "extends" in table:
            draft.extends = self._value(_join(path, "extends"), table["extends"], _text)
        if "weight" in table:
            draft.weight = self._value(_join(path, "weight"), table["weight"], _weight)
        if "features" in table:
            draft.features = self._value(_join(path, "features"), table["features"], _features)
        limits = _join(path, "limits")
        for name, value_ in self._named(limits, self._table(limits, table.get("limits", {}))):
            limit = self._limit(name, _join(limits, name), value_)
            if limit is not None:
                draft.limits[name] = limit
        quotas = _join(path, "quotas")
        for name, value_ in self._named(quotas, self._table(quotas, table.get("quotas", {}))):
            quota = self._quota(name, _join(quotas, name), value_)
            if quota is not None:
                draft.quotas[name] = quota
        draft.jobs = self._jobs(_join(path, "jobs"), table.get("jobs", {}))
        return draft

    def _limit(self, name: str, path: str, value: object) -> Limit | None:
        if not isinstance(value, dict):
            rates = self._value(path, value, parse_rates)
            return None if rates is None else Limit(name, rates)
        self._known_keys(path, value, ("rate", "enforce", "on_outage"))
        rates = None
        if "rate" not in value:
            self._fault(path, 'expected a rate, as { rate = "100/minute" }')
        else:
            rates = self._value(_join(path, "rate"), value["rate"], parse_rates)
        enforce = self._value(_join(path, "enforce"), value.get("enforce", True), _boolean)
        on_outage = self._value(
            _join(path, "on_outage"), value.get("on_outage", "local"), _one_of(OnOutage)
        )
        if rates is None or enforce is None or on_outage is None:
            return None
        return Limit(name, rates, enforce=enforce, on_outage=on_outage)

    def _quota(self, name: str, path: str, value: object) -> Quota | None:
        before = len(self.faults)
        per: Period | None = None
        amount = value
        amount_path = path
        if isinstance(value, dict):
            self._known_keys(path, value, ("limit", "per"))
            if "limit" not in value:
                self._fault(path, 'expected a limit, as { limit = 500, per = "month" }')
                return None
            amount, amount_path = value["limit"], _join(path, "limit")
            if "per" in value:
                per = self._value(_join(path, "per"), value["per"], _one_of(Period))
        if is_size(amount):
            self._sizes.add(name)
        limit = self._value(amount_path, amount, parse_amount)
        return Quota(name, limit, per) if len(self.faults) == before else None

    def _jobs(self, path: str, value: object) -> dict[str, Any]:
        table = self._table(path, value)
        readers: dict[str, Callable[[object], Any]] = {
            "concurrency": parse_count,
            "max_queued": parse_count,
            "rate": parse_rates,
        }
        self._known_keys(path, table, readers)
        return {
            key: self._value(_join(path, key), table[key], read)
            for key, read in readers.items()
            if key in table
        }

    def _extended(self, name: str, drafts: Mapping[str, _Draft]) -> _Draft:
        chain = [name]
        draft = drafts[name]
        whole = draft
        while draft.extends is not None:
            base = draft.extends
            path = _join("tiers", chain[-1], "extends")
            if base in chain:
                # Told once, at the tier whose own chain comes back to it.
                if base == name:
                    circle = " → ".join([*chain, base])
                    self._fault(_join("tiers", name, "extends"), f"goes in a circle: {circle}")
                break
            if base not in drafts:
                if len(chain) == 1:
                    self._fault(path, _expected_one_of([t for t in drafts if t != name], base))
                break
            chain.append(base)
            draft = drafts[base]
            whole = whole.over(draft)
        return whole

    def _resources(self, value: object, tiers: Collection[_Draft]) -> dict[str, Resource]:
        names = list(dict.fromkeys(name for tier in tiers for name in tier.quotas))
        durable: dict[str, bool] = {}
        for name, one in self._named("resources", self._table("resources", value)):
            path = _join("resources", name)
            table = self._table(path, one)
            self._known_keys(path, table, ("durable",))
            if name not in names and not self.faults:
                self._fault(path, f"no tier has a quota of it; {_expected_one_of(names, name)}")
            if "durable" in table:
                flag = self._value(_join(path, "durable"), table["durable"], _boolean)
                durable[name] = flag is not False
        return {
            name: Resource(
                name, durable.get(name, True), "bytes" if name in self._sizes else "count"
            )
            for name in names
        }

    def _value(self, path: str, value: object, read: Callable[[object], T]) -> T | None:
        try:
            return read(value)
        except ValueError as exc:
            self._fault(path, str(exc))
            return None

    def _table(self, path: str, value: object) -> Table:
        if isinstance(value, dict):
            return value
        self._fault(path, f"expected a table, as [{path}]; got {value!r:.60}")
        return {}

    def _named(self, path: str, table: Table) -> Iterator[tuple[str, Any]]:
        for name, value in table.items():
            if is_name(name):
                yield name, value
            else:
                self._fault(
                    _join(path, name),
                    "expected a name of 1 to 64 letters, digits, '.', '_' or '-', "
                    "beginning with a letter or digit",
                )

    def _known_keys(self, path: str, table: Table, known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                self._fault(_join(path, key), f"unknown; {_expected_one_of(known, key)}")

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(PolicyFault(self._source, path, message))


def _tier(
    name: str, draft: _Draft, limit_names: list[str], resources: Mapping[str, Resource]
) -> Tier:
    """What a tier does not name and another does is unlimited for it."""
    rates: tuple[Rate, ...] = draft.jobs.get("rate", ())
    return Tier(
        name=name,
        weight=1 if draft.weight is None else draft.weight,
        features=draft.features or (),
        limits=MappingProxyType({n: draft.limits.get(n) or Limit(n, ()) for n in limit_names}),
        quotas=MappingProxyType({n: draft.quotas.get(n) or Quota(n, None) for n in resources}),
        jobs=Jobs(draft.jobs.get("concurrency"), draft.jobs.get("max_queued"), rates),
    )


def _join(path: str, *names: str) -> str:
    """A table path as TOML writes it: a name with a dot in it is quoted."""
    for name in names:
        plain = name.replace("_", "").replace("-", "")
        key = name if plain.isascii() and plain.isalnum() else f'"{name}"'
        path = f"{path}.{key}" if path else key
    return path


def _expected_one_of(known: Collection[str], value: object) -> str:
    close = get_close_matches(value, known, 1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected {_listed(known)}; got {value!r:.60}{hint}"


def _listed(names: Collection[str]) -> str:
    if not names:
        return "nothing here"
    return f"one of {', '.join(names)}" if len(names) > 1 else next(iter(names))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a tier's name; got {value!r:.60}")
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false; got {value!r:.60}")
    return value


def _weight(value: object) -> float:
    if type(value) not in (int, float) or not (0 < value < math.inf):  # type: ignore[operator] # a number
        raise ValueError(f"expected a number above 0; got {value!r:.60}")
    return value  # type: ignore[return-value] # an int or a float, by the line above


def _features(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(name, str) and is_name(name) for name in value
    ):
        raise ValueError(f"expected a list of feature names; got {value!r:.60}")
    return tuple(dict.fromkeys(value))


def _one_of(literal: Any) -> Callable[[object], Any]:  # noqa: ANN401 - a Literal has no type of its own
    choices: tuple[str, ...] = get_args(literal)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(_expected_one_of(choices, value))
        return value

    return read
