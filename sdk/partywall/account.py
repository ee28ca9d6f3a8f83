"""What one process holds of one tenant's one limit: a lease, or an answer that goes on holding."""

import asyncio
from collections import deque
from typing import NamedTuple

from msgspec.structs import replace

from partywall.context import Tenant
from partywall.decision import Decision, Window
from partywall.protocol import MAX_AMOUNT, Ask, GiveBack, Permit, horizon


class Answer:
    """A decision with what a host app needs to act on it.

    Attributes:
        decision: the decision.
        tenant: whose, with its tier's features.
        upgrade: for a denial by the limit, the next tier that would have admitted it.
        rendered: whatever the middleware makes of it, kept because a held answer is given often.
    """

    __slots__ = ("decision", "rendered", "tenant", "upgrade")

    def __init__(self, decision: Decision, tenant: Tenant, upgrade: str | None = None) -> None:
        self.decision = decision
        self.tenant = tenant
        self.upgrade = upgrade
        self.rendered: object = None


class Waiter(NamedTuple):
    """A check that waits for the sidecar's answer; after `until` it is decided without."""

    cost: int
    until: float
    answer: "asyncio.Future[Answer]"


class Account:
    """What one process holds of one tenant's one limit. Times are of the process's own clock.

    Attributes:
        tenant: the tenant, as last told; its tier is None until it was.
        limit: the limit.
        units: leased and not spent yet.
        ends: when those units end.
        lease: by what they can be given back; None when they cannot.
        windows: as last told, with `units` spent; None until told.
        held: an answer that needs no units, for costs of `held_cost` and more, until `held_until`.
        waiting: checks that wait for an answer, oldest first.
        asking: whether a question is queued or under way.
        returning: whether units of it are on their way back.
    """

    __slots__ = (
        "_asked_at",
        "_degraded",
        "_horizon",
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
        self.held: Answer | None = None
        self.held_cost = 0
        self.held_until = 0.0
        self.waiting: deque[Waiter] = deque()
        self.asking = False
        self.returning = False
        self._told_at = 0.0
        self._asked_at = 0.0
        self._spent = 0
        self._degraded = False
        self._horizon = 0.0

    def take(self, cost: int, now: float) -> Answer | None:
        """An answer from what is in hand, or None."""
        if self.units >= cost and now < self.ends:
            return self._spend(cost, now)
        if self.held is not None and now < self.held_until and cost >= self.held_cost:
            return _for_cost(self.held, cost)
        return None

    def question(self, lease: str, now: float) -> Ask | None:
        """What to ask for the waiting checks, and ahead of those to come; None when all went away.

        A tenant that asked a moment ago will ask again: it gets what its rate since then would
        spend while a lease lasts, growing at most twofold from one lease to the next.
        """
        self.waiting = deque([waiter for waiter in self.waiting if not waiter.answer.done()])
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
        self._degraded = permit.degraded
        while self.waiting and self.waiting[0].cost <= self.units:
            waiter = self.waiting.popleft()
            if not waiter.answer.done():  # else its request went away, and its units stay in hand
                waiter.answer.set_result(self._spend(waiter.cost, now))

    def hold(self, ask: Ask, permit: Permit, until: float, now: float) -> None:
        """Keeps an answer that needs no units, and gives it to all whom it fits."""
        decision = self._decision(
            ask.cost,
            now,
            permit.windows,
            denial=None if permit.allowed else permit,
            degraded=permit.degraded,
        )
        held = self.held = Answer(decision, self.tenant, permit.upgrade)
        # Where no window is at its end the answer does not hang on the cost.
        self.held_cost = ask.cost if permit.windows else 1
        self.held_until = until
        unfit = []
        for waiter in self.waiting:
            if waiter.cost < self.held_cost:
                unfit.append(waiter)
            elif not waiter.answer.done():
                waiter.answer.set_result(_for_cost(held, waiter.cost))
        self.waiting = deque(unfit)

    def _spend(self, cost: int, now: float) -> Answer:
        self.units -= cost
        self._spent += cost
        decision = self._decision(cost, now, self.windows or (), degraded=self._degraded)
        return Answer(decision, self.tenant)

    def _decision(
        self,
        cost: int,
        now: float,
        windows: tuple[Window, ...],
        *,
        denial: Permit | None = None,
        degraded: bool = False,
    ) -> Decision:
        """A decision as of now: what is in hand still remains, and time has passed."""
        units = self.units
        passed = now - self._told_at
        windows = tuple(
            [
                Window(
                    window.quota,
                    window.window,
                    window.remaining + units,
                    max(0.0, window.reset_after - passed),
                )
                for window in windows
            ]
        )
        return Decision(
            allowed=denial is None,
            tenant=self.tenant.id,
            tier=self.tenant.tier,
            limit=self.limit,
            cost=cost,
            reason=denial.reason if denial else None,
            degraded=degraded,
            remaining=min([window.remaining for window in windows], default=0 if denial else None),
            retry_after=denial.retry_after if denial else 0.0,
            reset_after=max([window.reset_after for window in windows], default=0.0),
            windows=windows,
        )


def _for_cost(held: Answer, cost: int) -> Answer:
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
    return Answer(replace(decision, cost=cost, retry_after=retry_after), held.tenant)
