"""Permits: what an SDK process may spend, or must deny, without asking again for a moment.

One request carries the asks of many tenants, and units to give back. Those are taken back first,
then the asks are answered, all in one call of the engine. Whatever keeps one ask from being decided
is that ask's own answer: a tenant that cannot be read now, or a limit that is closed in an outage,
takes no answer from the others.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from partywall.decision import Reason
from partywall.protocol import (
    LONGEST_HOLD,
    Ask,
    GiveBack,
    Permit,
    PermitsAnswer,
    PermitsRequest,
    TierFacts,
)
from partywall_service.admission import AdmissionError
from partywall_service.directory import Directory, Standing
from partywall_service.engine import base
from partywall_service.engine.base import Engine, Return, StoreError, Verdict
from partywall_service.engine.local import LocalLimiter
from partywall_service.engine.memory import MICROSECONDS
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.metrics import DecisionCounter, Outcome, PermitOutcome
from partywall_service.names import EXPECTED_NAME, EXPECTED_TENANT, is_name, is_tenant_id
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Limit, Policy
from partywall_service.policy.upgrade import feature_upgrades, next_tier

RETRY_AFTER = 1.0
"""Seconds after which to try again what could not be decided; the 503 of other endpoints says the
same."""


LOOKUP_PATIENCE = 0.1
"""Seconds that asks wait for tenants that must be read first: one request carries the asks of many,
and those of the known ones must not miss the SDK's deadline for it. The read itself goes on."""


class InvalidItem(AdmissionError):
    """An ask or a return that cannot be; nothing of its request was applied.

    Attributes:
        field: where in the request, such as `asks[3].tenant`.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class Presence(Protocol):
    """Who else shares the quotas."""

    @property
    def sdk_instances(self) -> int:
        """SDK processes seen alive, at least 1."""
        ...

    def saw(self, instance: str) -> None:
        """Notes that an SDK process lives."""
        ...


class _Asked(NamedTuple):
    """An ask that the engine must answer."""

    ask: Ask
    standing: Standing
    limit: Limit


_Standings = dict[str, Standing | None]
"""By tenant: None is unknown; one that could not be read is not there."""

_Returned = tuple[Return, str]
"""What the engine is told, and the tenant's tier."""

_Tally = defaultdict[tuple[str, str, PermitOutcome], int]
"""By tier, limit and outcome."""


class Permits:
    """Answers `/v1/permits`.

    Args:
        directory: what is known of tenants.
        engine: the shared windows.
        local: what stands in for limits with `on_outage = "local"`.
        policy: whose tiers are named in answers.
        presence: told of every SDK process that asks.
        count: told of what was granted, denied and returned.
    """

    def __init__(
        self,
        directory: Directory,
        engine: Engine,
        local: LocalLimiter,
        policy: PolicyHolder,
        presence: Presence,
        count: DecisionCounter,
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._local = local
        self._policy = policy
        self._presence = presence
        self._count = count
        self._facts_of: Policy | None = None
        self._facts: dict[str, TierFacts] = {}

    async def answer(self, request: PermitsRequest) -> PermitsAnswer:
        """Applies the returns, then answers the asks in order.

        Raises:
            InvalidItem: of an ask or a return; then nothing was applied.
        """
        if request.instance.endswith("\n"):  # which the pattern of its type lets through
            raise InvalidItem("instance", "expected no line end")
        standings = await self._standings(request)
        tally: _Tally = defaultdict(int)
        returns = _settle_returns(request.returns, standings)
        settled = [_settle(place, ask, standings, tally) for place, ask in enumerate(request.asks)]
        self._presence.saw(request.instance)
        asked = [one for one in settled if isinstance(one, _Asked)]
        within = round(request.within * MICROSECONDS)
        answers = iter(
            await self._decide(returns, asked, within, tally) if returns or asked else ()
        )
        permits = [next(answers) if isinstance(one, _Asked) else one for one in settled]
        self._count.add_permits(tally)
        return PermitsAnswer(
            permits,
            self._facts_for({permit.tier for permit in permits}),
            self._presence.sdk_instances,
        )

    async def _standings(self, request: PermitsRequest) -> _Standings:
        standings: _Standings = {}
        missing: list[str] = []
        lists: tuple[tuple[str, Sequence[Ask | GiveBack]], ...] = (
            ("returns", request.returns),
            ("asks", request.asks),
        )
        for name, items in lists:
            for place, item in enumerate(items):
                tenant = item.tenant
                if tenant in standings:
                    continue
                entry = self._directory.get(tenant)
                if entry is not None:
                    standings[tenant] = entry.standing
                elif is_tenant_id(tenant):
                    missing.append(tenant)
                else:
                    raise InvalidItem(f"{name}[{place}].tenant", EXPECTED_TENANT)
        if missing:
            await self._find(missing, standings)
        return standings

    async def _find(self, missing: list[str], standings: _Standings) -> None:
        """Reads whom it can: while PostgreSQL is away or slow, some may be known from before."""
        names = list(dict.fromkeys(missing))
        try:
            async with asyncio.timeout(LOOKUP_PATIENCE):
                found = await self._directory.find(names)
        except TimeoutError:
            return
        except LedgerUnavailable:
            found = {}
            # All at once: they share a load, and right after one that failed none is tried.
            answers = await asyncio.gather(
                *(self._directory.find([tenant]) for tenant in names), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, dict):
                    found |= answer
                elif not isinstance(answer, LedgerUnavailable):
                    raise answer from None
        for tenant, entry in found.items():
            standings[tenant] = entry.standing

    async def _decide(
        self, returns: Sequence[_Returned], asked: Sequence[_Asked], within: int, tally: _Tally
    ) -> list[Permit]:
        """One permit for each of `asked`, after the returns."""
        given_back = [back for back, _ in returns]
        questions = [
            base.Ask(
                ask.tenant,
                ask.limit,
                limit.rates,
                ask.cost,
                ask.need,
                ask.ahead,
                ask.lease if ask.lease and ask.ahead else "",
                within,
            )
            for ask, _, limit in asked
        ]
        try:
            verdicts = await self._engine.decide([*given_back, *questions])
        except StoreError:
            # What was to be given back stays spent: that admits less, never more.
            return [
                self._without_store(one, question, tally)
                for one, question in zip(asked, questions, strict=True)
            ]
        for (back, tier), verdict in zip(returns, verdicts[: len(returns)], strict=True):
            if verdict.granted:
                tally[tier, back.limit, "returned"] += verdict.granted
        return [
            _permit(self._policy.current, one, question, verdict, tally)
            for one, question, verdict in zip(
                asked, questions, verdicts[len(returns) :], strict=True
            )
        ]

    def _without_store(self, one: _Asked, question: base.Ask, tally: _Tally) -> Permit:
        tier, limit = one.standing.tier.name, one.limit
        if limit.on_outage == "closed":
            return _unavailable(tier)
        if limit.on_outage == "open":
            self._count.add_degraded(tier, limit.name, "admitted")
            return Permit(True, tier, degraded=True, seconds=LONGEST_HOLD)
        verdict = self._local.decide(question)
        outcome: Outcome = (
            "admitted" if verdict.allowed else "denied" if limit.enforce else "would_deny"
        )
        self._count.add_degraded(tier, limit.name, outcome)
        return _permit(self._policy.current, one, question, verdict, tally, degraded=True)

    def _facts_for(self, tiers: Iterable[str | None]) -> dict[str, TierFacts]:
        policy = self._policy.current
        if policy is not self._facts_of:
            self._facts = {
                name: TierFacts(tier.features, feature_upgrades(policy, name))
                for name, tier in policy.tiers.items()
            }
            self._facts_of = policy
        facts = self._facts
        # A tier that left the policy since a tenant of it was looked up has no facts any more.
        return {name: facts[name] for name in tiers if name in facts}


def _settle_returns(returns: Sequence[GiveBack], standings: _Standings) -> list[_Returned]:
    """Returns that the engine can know of: those of a limit that has windows."""
    settled = []
    for place, back in enumerate(returns):
        standing = standings.get(back.tenant)
        limit = standing.limits.get(back.limit) if standing else None
        if limit is None or standing is None:
            _check_limit("returns", place, back.limit)
        elif limit.rates:
            question = Return(back.tenant, back.limit, limit.rates, back.lease, back.units)
            settled.append((question, standing.tier.name))
    return settled


def _settle(place: int, ask: Ask, standings: _Standings, tally: _Tally) -> Permit | _Asked:
    """What can be said without the engine, or what must be asked of it."""
    if ask.need < ask.cost:
        raise InvalidItem(
            f"asks[{place}].need", f"expected at least the cost, {ask.cost}; got {ask.need}"
        )
    if ask.ahead and ask.lease is None:
        raise InvalidItem(f"asks[{place}].lease", "expected an id, because `ahead` is above 0")
    standing = standings.get(ask.tenant)
    limit = standing.limits.get(ask.limit) if standing else None
    if standing is None or limit is None:
        _check_limit("asks", place, ask.limit)
        if standing is not None:
            return _refusal(standing.tier.name, "unknown-limit")
        return _refusal(None, "unknown-tenant") if ask.tenant in standings else _unavailable(None)
    tier = standing.tier.name
    if standing.status == "suspended":
        tally[tier, limit.name, "denied"] += 1
        return _refusal(tier, "tenant-suspended")
    if not limit.rates:
        return Permit(True, tier, seconds=LONGEST_HOLD)
    return _Asked(ask, standing, limit)


def _check_limit(items: str, place: int, limit: str) -> None:
    if not is_name(limit):
        raise InvalidItem(f"{items}[{place}].limit", EXPECTED_NAME)


def _permit(
    policy: Policy,
    one: _Asked,
    question: base.Ask,
    verdict: Verdict,
    tally: _Tally,
    *,
    degraded: bool = False,
) -> Permit:
    ask, standing, limit = one
    allowed, retry_after, windows, granted = verdict
    tier = standing.tier.name
    if allowed:
        tally[tier, limit.name, "granted"] += granted
        return Permit(
            True,
            tier,
            degraded=degraded,
            granted=granted,
            seconds=question.lasts(granted) / MICROSECONDS,
            leased=granted > ask.need,  # the engine keeps a lease's record where it granted ahead
            windows=windows,
        )
    seconds = LONGEST_HOLD if retry_after is None else min(LONGEST_HOLD, retry_after)
    if not limit.enforce:
        tally[tier, limit.name, "would_deny"] += 1
        return Permit(
            True, tier, degraded=degraded, seconds=seconds, windows=windows, would_deny=True
        )
    tally[tier, limit.name, "denied"] += 1
    return Permit(
        False,
        tier,
        "limit-exceeded",
        degraded,
        seconds=seconds,
        retry_after=retry_after,
        upgrade=next_tier(policy, tier, limit.name, ask.cost, windows),
        windows=windows,
    )


def _refusal(tier: str | None, reason: Reason) -> Permit:
    return Permit(False, tier, reason, seconds=LONGEST_HOLD, retry_after=None)


def _unavailable(tier: str | None) -> Permit:
    # A tenant that could not be read, and so has no tier, may be known a moment later.
    seconds = 0.0 if tier is None else LONGEST_HOLD
    return Permit(False, tier, "unavailable", seconds=seconds, retry_after=RETRY_AFTER)
