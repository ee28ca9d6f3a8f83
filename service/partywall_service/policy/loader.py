"""quotas.toml → Policy: every error found at once, each with its table path."""

import hashlib
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partywall_service.names import QUOTA_VERBS
from partywall_service.policy.amounts import is_size, parse_amount, parse_count, parse_rates
from partywall_service.policy.errors import PolicyError, PolicyFault
from partywall_service.policy.model import (
    THRESHOLDS,
    Jobs,
    Limit,
    OnOutage,
    Period,
    Policy,
    Quota,
    Resource,
    Tier,
)
from partywall_service.policy.values import (
    expected_one_of,
    one_of,
    read_boolean,
    read_features,
    read_queue,
    read_text,
    read_thresholds,
    read_weight,
)
from partywall_service.policy.walk import Table, Walk, join

__all__ = [
    "PolicyError",
    "PolicyFault",
    "load_policy",
    "parse_amount",
    "parse_policy",
    "parse_rates",
    "policy_digest",
    "read_policy_text",
]


def load_policy(path: Path) -> Policy:
    """Reads the policy file.

    Raises:
        PolicyError: it cannot be read, or something in it is wrong.
    """
    return parse_policy(read_policy_text(path), str(path))


def read_policy_text(path: Path) -> str:
    """What the policy file says, without the byte order mark that some editors put first.

    Raises:
        PolicyError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        reason = f"expected a policy file; it cannot be read: {exc.strerror or exc}"
        raise PolicyError(PolicyFault(str(path), "", reason)) from exc
    except UnicodeDecodeError as exc:
        reason = f"expected UTF-8; byte {exc.start} of the file is no part of any"
        raise PolicyError(PolicyFault(str(path), "", reason)) from exc


def policy_digest(text: str) -> str:
    """SHA-256 of a policy's text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_policy(text: str, source: str) -> Policy:
    """Reads a policy.

    Args:
        text: TOML, as docs/contract.md section 3 describes it.
        source: what errors call it.

    Raises:
        PolicyError: with every fault there is.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise PolicyError(PolicyFault(source, "", f"expected TOML: {exc}")) from exc
    except RecursionError as exc:
        reason = "expected TOML: its lists or tables lie too deep in one another"
        raise PolicyError(PolicyFault(source, "", reason)) from exc
    except ValueError as exc:  # what Python says of an integer of more than 4,300 digits
        reason = "expected TOML: integers have up to 64 bits; got one of thousands of digits"
        raise PolicyError(PolicyFault(source, "", reason)) from exc
    reader = _Reader(source)
    policy = reader.policy(document, policy_digest(text))
    if policy is None:
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


class _Reader(Walk):
    """Reads one document into a policy."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._sizes: set[str] = set()
        self._resource_names: dict[str, None] = {}  # also those whose quota has a fault; in order
        self._in_circles: set[str] = set()

    def policy(self, document: Table, digest: str) -> Policy | None:
        """The policy, or None when there are faults."""
        self.known_keys("", document, ("default_tier", "tiers", "resources"))
        tables = self.table("tiers", document.get("tiers", {}))
        if not tables and isinstance(document.get("tiers", {}), dict):
            self.fault("tiers", "expected at least one tier, as [tiers.free]; got none")
        drafts = {
            name: self._draft(join("tiers", name), table)
            for name, table in self.named("tiers", tables)
        }
        default = document.get("default_tier")
        if default is not None and not (isinstance(default, str) and default in tables):
            self.fault("default_tier", expected_one_of(drafts, default))
        whole = {name: self._extended(name, drafts) for name in drafts}
        resources = self._resources(document.get("resources", {}))
        if self.faults:
            return None
        limit_names = list(dict.fromkeys(name for draft in whole.values() for name in draft.limits))
        quotas = {
            name: Quota(name, None, _common_period(name, whole.values())) for name in resources
        }
        tiers = {name: _tier(name, draft, limit_names, quotas) for name, draft in whole.items()}
        return Policy(
            tiers=MappingProxyType(tiers),
            default_tier=default,
            resources=MappingProxyType(resources),
            digest=digest,
        )

    def _draft(self, path: str, value: object) -> _Draft:
        table = self.table(path, value)
        self.known_keys(path, table, ("extends", "weight", "features", "limits", "quotas", "jobs"))
        draft = _Draft()
        if "extends" in table:
            draft.extends = self.value(join(path, "extends"), table["extends"], read_text)
        if "weight" in table:
            draft.weight = self.value(join(path, "weight"), table["weight"], read_weight)
        if "features" in table:
            draft.features = self.value(join(path, "features"), table["features"], read_features)
        limits = join(path, "limits")
        for name, written in self.named(limits, self.table(limits, table.get("limits", {}))):
            limit = self._limit(name, join(limits, name), written)
            if limit is not None:
                draft.limits[name] = limit
        quotas = join(path, "quotas")
        for name, written in self.named(quotas, self.table(quotas, table.get("quotas", {}))):
            self._resource_names[name] = None
            if name in QUOTA_VERBS:
                reason = f"expected another name; {name} is what the API does with quotas"
                self.fault(join(quotas, name), reason)
            quota = self._quota(name, join(quotas, name), written)
            if quota is not None:
                draft.quotas[name] = quota
        draft.jobs = self._jobs(join(path, "jobs"), table.get("jobs", {}))
        return draft

    def _limit(self, name: str, path: str, value: object) -> Limit | None:
        if not isinstance(value, dict):
            rates = self.value(path, value, parse_rates)
            return None if rates is None else Limit(name, rates)
        self.known_keys(path, value, ("rate", "enforce", "on_outage"))
        rates = None
        if "rate" in value:
            rates = self.value(join(path, "rate"), value["rate"], parse_rates)
        else:
            self.fault(path, 'expected a rate, as { rate = "100/minute" }; got none')
        enforce = self.value(join(path, "enforce"), value.get("enforce", True), read_boolean)
        on_outage = self.value(
            join(path, "on_outage"), value.get("on_outage", "local"), one_of(OnOutage)
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
            self.known_keys(path, value, ("limit", "per"))
            if "per" in value:
                per = self.value(join(path, "per"), value["per"], one_of(Period))
            if "limit" not in value:
                self.fault(path, 'expected a limit, as { limit = 500, per = "month" }; got none')
                return None
            amount, amount_path = value["limit"], join(path, "limit")
        if is_size(amount):
            self._sizes.add(name)
        limit = self.value(amount_path, amount, parse_amount)
        return Quota(name, limit, per) if len(self.faults) == before else None

    def _jobs(self, path: str, value: object) -> dict[str, Any]:
        table = self.table(path, value)
        readers: dict[str, Callable[[object], Any]] = {
            "concurrency": parse_count,
            "max_queued": parse_count,
            "rate": parse_rates,
            "queue": read_queue,
        }
        self.known_keys(path, table, readers)
        return {
            key: self.value(join(path, key), table[key], read)
            for key, read in readers.items()
            if key in table
        }

    def _extended(self, name: str, drafts: Mapping[str, _Draft]) -> _Draft:
        """The tier with all that it extends, wherever in the file that stands."""
        chain = [name]
        draft = whole = drafts[name]
        while draft.extends is not None:
            base = draft.extends
            if base in chain:
                # Told once, at the first of its tiers; one that only leads into it has no fault.
                if base == name and name not in self._in_circles:
                    self._in_circles.update(chain)
                    circle = " → ".join([*chain, base])
                    self.fault(
                        join(join("tiers", name), "extends"),
                        f"expected a chain with an end; got a circle: {circle}",
                    )
                break
            if base not in drafts:
                if len(chain) == 1:  # else it is told at the tier that says it
                    others = [other for other in drafts if other != name]
                    self.fault(join(join("tiers", name), "extends"), expected_one_of(others, base))
                break
            chain.append(base)
            draft = drafts[base]
            whole = whole.over(draft)
        return whole

    def _resources(self, value: object) -> dict[str, Resource]:
        names = self._resource_names
        durable: dict[str, bool] = {}
        thresholds: dict[str, tuple[int, ...]] = {}
        for name, written in self.named("resources", self.table("resources", value)):
            path = join("resources", name)
            table = self.table(path, written)
            self.known_keys(path, table, ("durable", "thresholds"))
            if name not in names:
                self.fault(path, f"no tier has a quota of it; {expected_one_of(names, name)}")
            if "durable" in table:
                flag = self.value(join(path, "durable"), table["durable"], read_boolean)
                durable[name] = flag is not False
            if "thresholds" in table:
                percents = self.value(
                    join(path, "thresholds"), table["thresholds"], read_thresholds
                )
                thresholds[name] = percents or ()
        return {
            # One size makes it bytes everywhere: other tiers' plain numbers are then bytes too.
            name: Resource(
                name,
                durable.get(name, True),
                "bytes" if name in self._sizes else "count",
                thresholds.get(name, THRESHOLDS),
            )
            for name in names
        }


def _common_period(resource: str, drafts: Iterable[_Draft]) -> Period | None:
    """The period that the tiers give a resource, where those that name one agree."""
    named = {draft.quotas[resource].per for draft in drafts if resource in draft.quotas} - {None}
    return named.pop() if len(named) == 1 else None


def _tier(
    name: str, draft: _Draft, limit_names: Collection[str], unlimited: Mapping[str, Quota]
) -> Tier:
    """What a tier does not name and another does is unlimited for it.

    A quota written without a period is counted by that of the other tiers, so that a tenant that
    moves between them does not lose its count.
    """
    quotas = {
        resource: replace(quota, per=quota.per or lifted.per)
        for resource, lifted in unlimited.items()
        for quota in [draft.quotas.get(resource, lifted)]
    }
    return Tier(
        name=name,
        weight=1 if draft.weight is None else draft.weight,
        features=draft.features or (),
        limits=MappingProxyType({n: draft.limits.get(n) or Limit(n, ()) for n in limit_names}),
        quotas=MappingProxyType(quotas),
        jobs=Jobs(
            concurrency=draft.jobs.get("concurrency"),
            max_queued=draft.jobs.get("max_queued"),
            rates=draft.jobs.get("rate", ()),
            queue=draft.jobs.get("queue"),
        ),
    )
