"""What one process holds of one tenant's one limit: a lease, or an answer that goes on holding."""

import asyncio
from typing import ClassVar, NamedTuple

import msgspec
from msgspec.structs import replace

from partywall.context import Tenant
from partywall.decision import Decision, HeaderFamily, Window, rate_limit_headers
from partywall.headers import HeaderTemplate
from partywall.protocol import MAX_AMOUNT, Ask, GiveBack, Permit, horizon
from partywall.responses import RawHeaders, raw
from partywall.usage import Tally


class Settled(msgspec.Struct, eq=False):
    """A decision with what a host app needs to act on it.

    Attributes:
        decision: the decision.
        tenant: whose, with its tier's features.
        tally: what it is counted in.
        upgrade: for a denial by the limit, the next tier that would have admitted it.
        observed: allowed only because the limit is not enforced.
        rendered: whatever the middleware makes of it, kept because a held answer is given often.
    """

    decision: Decision
    tenant: Tenant
    tally: Tally
    upgrade: str | None = None
    observed: bool = False
    rendered: object = None

    @property
    def allowed(self) -> bool:
        """As in the decision."""
        return self.decision.allowed

    @property
    def degraded(self) -> bool:
        """As in the decision."""
        return self.decision.degraded

    def headers(self, family: HeaderFamily) -> RawHeaders:
        """What an admitted request's response says of it."""
        headers = rate_limit_headers(self.decision, family)
        # Of a denial that is only observed: that response tells nobody to wait.
        headers.pop("Retry-After", None)
        return raw(headers)


class Lent(msgspec.Struct, eq=False):
    """What the answers from one lease have in common: what the sidecar told with it.

    Attributes:
        tenant: whose it is.
        limit: of which limit.
        windows: with all of its units spent.
        told_at: when that was so.
        degraded: as in the decisions.
        template: the headers of those answers, of the family that was asked for last.
    """

    tenant: Tenant
    limit: str
    windows: tuple[Window, ...] = ()
    told_at: float = 0.0
    degraded: bool = False
    template: HeaderTemplate | None = None


class Spent(msgspec.Struct, eq=False):
    """Admitted with units in hand. Its decision is made when somebody asks for it: few do.

    Attributes:
        tenant: whose, with its tier's features.
        degraded: as in the decision.
        tally: what it is counted in.
        allowed, upgrade: as of every admission.
    """

    tenant: Tenant
    degraded: bool
    tally: Tally
    _lent: Lent
    _cost: int
    _units: int
    _now: float
    _decision: Decision | None = None

    allowed: ClassVar[bool] = True
    upgrade: ClassVar[str | None] = None

    @property
    def decision(self) -> Decision:
        """As of when it was spent: what was in hand still remained, and time had passed."""
        if self._decision is None:
            lent = self._lent
            passed = self._now - lent.told_at
            windows = [
                Window(
                    one.quota,
                    one.window,
                    one.remaining + self._units,
                    max(0.0, one.reset_after - passed),
                )
                for one in lent.windows
            ]
            self._decision = _decision(
                self.tenant, lent.limit, self._cost, tuple(windows), self.degraded
            )
        return self._decision

    def headers(self, family: HeaderFamily) -> RawHeaders:
        """What the request's response says of it."""
        lent = self._lent
        template = lent.template
        if template is None or template.family != family:  # two middlewares may share a client
            template = lent.template = HeaderTemplate(lent.limit, lent.windows, family)
        return template.filled(self._units, self._now - lent.told_at)


Answer = Settled | Spent
"""The answer to one check. Only a settled one may be a denial."""


class Waiter(NamedTuple):
    """A check that waits for the sidecar's answer; after `until` it is decided without."""

    cost: int
    until: float
    answer: "asyncio.Future[Answer]"


_NOTHING_LENT = Lent(Tenant(id="", tier=None), "")


class Account:
    """What one process holds of one tenant's one limit. Times are of the process's own clock.

    Attributes:
        tenant: the tenant, as last told; its tier is None until it was.
        limit: the limit.
        units: leased and not spent yet.
        ends: when those units end.
        lease: by what they can be given back; None when they cannot.
        windows: as last told, with `units` spent; None until told.
        tally: what is counted of it, under the names that may be reported.
        held: an answer that needs no units, for costs of `held_cost` and more, until `held_until`.
        waiting: checks that wait for an answer, oldest first.
        asking: whether a question is queued or under way.
        returning: whether units of it are on their way back.
    """

    __slots__ = (
        "_asked_at",
        "_horizon",
        "_lent",
        "_spent",
        "_told_at",
        "asking",
        "ends",
        "held",
        "held_cost",
        "held_until",
        "lease",
        "limit",
        "returning",
        "tally",
        "tenant",
        "units",
        "waiting",
        "windows",
    )

    def __init__(self, tenant: str, limit: str) -> None:
        self.tenant = Tenant(id=tenant, tier=None)
        self.limit = limit
        self.units = 0
        self.ends = 0.0
        self.lease: str | None = None
        self.windows: tuple[Window, ...] | None = None
        self.tally = Tally(tenant, limit)
        self.held: Settled | None = None
        self.held_cost = 0
        self.held_until = 0.0
        self.waiting: list[Waiter] = []  # a deque would be most of what an idle account takes
        self.asking = False
        self.returning = False
        self._told_at = 0.0
        self._asked_at = 0.0
        self._spent = 0
        self._lent = _NOTHING_LENT
        self._horizon = 0.0

    def take(self, cost: int, now: float) -> Answer | None:
        """An answer from what is in hand, counted; or None.

        Without further calls where it can be: this is what a hot tenant's check costs.
        """
        if self.units >= cost and now < self.ends:
            self.units = units = self.units - cost
            self._spent += cost
            lent, tally = self._lent, self.tally
            tally.admitted += 1
            if lent.degraded:
                tally.degraded += 1
            return Spent(lent.tenant, lent.degraded, tally, lent, cost, units, now)
        held = self.held
        if held is not None and now < self.held_until and cost >= self.held_cost:
            count(held)
            return held if cost == held.decision.cost else _for_cost(held, cost)
        return None

    def question(self, lease: str, now: float) -> Ask | None:
        """What to ask for the waiting checks, and ahead of those to come; None when all went away.

        A tenant that asked a moment ago will ask again: it gets what its rate since then would
        spend while a lease lasts, growing at most twofold from one lease to the next.
        """
        self.waiting = [waiter for waiter in self.waiting if not waiter.answer.done()]
        if not self.waiting:
            return None
        # Together they may cost more than one ask can name: what is granted serves the oldest.
        need = min(MAX_AMOUNT, sum(waiter.cost for waiter in self.waiting))
        spent = self._spent + need
        ahead = 0
        if self._horizon and self._asked_at:
            expected = spent * self._horizon / max(now - self._asked_at, 1e-6)
            ahead = int(min(expected, 2 * spent, MAX_AMOUNT))
        self._asked_at = now
        self._spent = 0
        first = self.waiting[0].cost
        return Ask(
            tenant=self.tenant.id,
            limit=self.limit,
            cost=first,
            need=need,
            ahead=ahead,
            lease=lease if ahead else None,
        )

    def unspent(self) -> GiveBack | None:
        """Lets go of what is in hand; what of it can be given back, or None."""
        units, lease = self.units, self.lease
        self.units = 0
        self.lease = None
        if units and lease is not None:
            return GiveBack(self.tenant.id, self.limit, lease, units)
        return None

    def told(self, ask: Ask, permit: Permit, features: tuple[str, ...], now: float) -> None:
        """Takes the facts of an answer: tier, features, windows."""
        if permit.reason == "unavailable":
            return
        known = self.tenant
        if known.tier != permit.tier or known.features != features:
            self.tenant = Tenant(id=known.id, tier=permit.tier, features=features)
        self._reported_as(
            None if permit.tier is None else known.id,
            None if permit.reason == "unknown-limit" else self.limit,
        )
        if permit.windows or (permit.allowed and not permit.degraded):
            # Else nothing was said of windows; without any a limit counts as unlimited.
            self.windows = permit.windows
            self._told_at = now
        if permit.windows:
            self._horizon = horizon(min([window.window for window in permit.windows]))

    def lend(self, ask: Ask, permit: Permit, ends: float, now: float) -> None:
        """Takes granted units in hand and serves the waiting checks from them, oldest first."""
        self.held = None
        self.held_until = 0.0
        self.units = permit.granted
        self.ends = ends
        self.lease = ask.lease if permit.leased else None
        self._lent = Lent(
            self.tenant, self.limit, self.windows or (), self._told_at, permit.degraded
        )
        served = 0
        for waiter in self.waiting:
            if waiter.cost > self.units:
                break
            served += 1
            if not waiter.answer.done():  # else its request went away, and its units stay in hand
                waiter.answer.set_result(self._spend(waiter.cost, now))
        del self.waiting[:served]
        if not self.units:
            self._lent = _NOTHING_LENT  # an account that only asked once keeps nothing of it

    def hold(self, ask: Ask, permit: Permit, until: float, now: float) -> None:
        """Keeps an answer that needs no units, and gives it to all whom it fits."""
        denial = None if permit.allowed else permit
        decision = _decision(
            self.tenant, self.limit, ask.cost, permit.windows, permit.degraded, denial
        )
        held = self.held = Settled(
            decision, self.tenant, self.tally, permit.upgrade, permit.would_deny
        )
        # Where no window is at its end the answer does not hang on the cost.
        self.held_cost = ask.cost if permit.windows else 1
        self.held_until = until
        unfit = []
        for waiter in self.waiting:
            if waiter.cost < self.held_cost:
                unfit.append(waiter)
            elif not waiter.answer.done():
                waiter.answer.set_result(_for_cost(held, waiter.cost))
        self.waiting = unfit

    def _reported_as(self, tenant: str | None, limit: str | None) -> None:
        """What was counted under another name stays so."""
        if self.tally.tenant != tenant or self.tally.limit != limit:
            self.tally = Tally(tenant, limit)

    def _spend(self, cost: int, now: float) -> Spent:
        self.units -= cost
        self._spent += cost
        lent = self._lent
        return Spent(lent.tenant, lent.degraded, self.tally, lent, cost, self.units, now)


def count(answer: Answer) -> None:
    """Counts an answer that somebody is given."""
    tally, decision = answer.tally, answer.decision if type(answer) is Settled else answer
    if not decision.allowed:
        tally.denied += 1
    elif type(answer) is Settled and answer.observed:
        tally.observed += 1
    else:
        tally.admitted += 1
    if decision.degraded:
        tally.degraded += 1


def _decision(
    tenant: Tenant,
    limit: str,
    cost: int,
    windows: tuple[Window, ...],
    degraded: bool,
    denial: Permit | None = None,
) -> Decision:
    return Decision(
        allowed=denial is None,
        tenant=tenant.id,
        tier=tenant.tier,
        limit=limit,
        cost=cost,
        reason=denial.reason if denial else None,
        degraded=degraded,
        remaining=min([one.remaining for one in windows], default=0 if denial else None),
        retry_after=denial.retry_after if denial else 0.0,
        reset_after=max([one.reset_after for one in windows], default=0.0),
        windows=windows,
    )


def _for_cost(held: Settled, cost: int) -> Settled:
    """A held answer, for a check of the same cost or more."""
    decision = held.decision
    if cost == decision.cost:
        return held
    retry_after = decision.retry_after
    if retry_after is not None and not decision.allowed:
        # When so much has room nobody said: when the window is free again is enough.
        waits = [one.reset_after for one in decision.windows if one.remaining < cost]
        never = any(cost > one.quota for one in decision.windows)
        retry_after = None if never else max([retry_after, *waits])
    # Which tier would have admitted so much nobody said, either.
    decision = replace(decision, cost=cost, retry_after=retry_after)
    return Settled(decision, held.tenant, held.tally, observed=held.observed)
