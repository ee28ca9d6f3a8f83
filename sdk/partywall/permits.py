"""Permits: leases and denials held in this process, so that a hot tenant's check asks nobody.

A check is answered from what is in hand; else it joins the question that goes to the sidecar next.
While a question is under way new checks gather for the one after it (natural batching: no timer,
and no added wait when idle). docs/design.md, "Permits", has the arithmetic and its proof.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import NamedTuple

from partywall.account import Account, Answer, Settled, Waiter, count
from partywall.decision import Decision
from partywall.errors import Forbidden, SidecarError, Unauthenticated, UnexpectedAnswer
from partywall.outage import OnOutage, Outage
from partywall.protocol import (
    LONGEST_HORIZON,
    MAX_ITEMS,
    SHORTEST_HORIZON,
    Ask,
    GiveBack,
    PermitsAnswer,
    PermitsRequest,
)
from partywall.usage import Counts, Report, Usage

MAX_IN_FLIGHT = 2
"""Questions at once: one being answered while the next is made."""

GENERATION_SIZE = 20_000
"""Accounts in a generation: at most twice as many are remembered."""

GENERATION_SECONDS = 30.0
"""An account that was not used for one to two of these leaves."""

TRIPS_WITHIN = 4
"""Units that are needed at once must be spent within this many of the longest round trips of late;
an answer that takes longer is of no use, and is asked for again."""

RETRY_SECONDS = 0.05
"""After a failed question, checks are decided without the sidecar for so long before one asks."""

RETURN_SECONDS = 10.0
"""For how long a return is tried; after that the sidecar has forgotten the lease."""

Lease = Callable[[PermitsRequest], Awaitable[PermitsAnswer]]

log = logging.getLogger("partywall")


class _Return(NamedTuple):
    """What an account gives back; it is tried until some time."""

    until: float
    unspent: GiveBack
    account: Account


class _Call(NamedTuple):
    """A question under way: the accounts it asks for, and what it gives back."""

    asked: list[tuple[Account, Ask]]
    returns: list[_Return]


class Permits:
    """Decides checks of one event loop.

    Args:
        lease: asks the sidecar; raises `SidecarError` when there is no answer.
        on_outage: what decides then.
        deadline: seconds after which a check is decided without an answer that it could use.
        instance: this process's id for the sidecar; a random one when left out.
        report: tells the sidecar what was counted; left out, nothing is reported.
        clock: seconds that never go back.

    Attributes:
        usage: what was counted, of which the middlewares count, too.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        on_outage: OnOutage = "local",
        deadline: float = 0.25,
        instance: str | None = None,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._outage = Outage(on_outage)
        self._deadline = deadline
        self._instance = instance or secrets.token_hex(8)
        self._clock = clock
        self.usage = Usage(report, instance=self._instance, clock=clock)
        self._numbers = itertools.count(1)
        # What is done for all must not run as the tenant whose request happened to begin it.
        self._context = Context()
        self._accounts: dict[tuple[str, str], Account] = {}
        self._older: dict[tuple[str, str], Account] = {}
        self._turned_at = clock()
        self._queue: deque[Account] = deque()
        self._returns: deque[_Return] = deque()
        self._parked: set[Account] = set()
        self._leases: deque[tuple[float, str, Account]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False
        # Nothing is known of the way yet, and the first answer waits for a connection.
        self._trip = LONGEST_HORIZON / TRIPS_WITHIN
        self._retry_at = 0.0
        self._failing: str | None = None
        self._refusal: SidecarError | None = None
        self._unknown_limits: set[str] = set()
        self._upgrades: dict[str, dict[str, str]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._accounts) + len(self._older)

    @property
    def counts(self) -> Counts:
        """What was answered so far."""
        return self.usage.counts

    @property
    def refusal(self) -> SidecarError | None:
        """Why the sidecar refused the last question: the token cannot check. None if it did not.

        No outage, though `on_outage` decides then too: it lasts until somebody changes the token.
        """
        return self._refusal

    def upgrade_for(self, tier: str | None, feature: str) -> str | None:
        """The first later tier that has a feature, as the sidecar last said; None without one."""
        return self._upgrades.get(tier or "", {}).get(feature)

    async def decide(self, tenant: str, limit: str, cost: int = 1) -> Decision:
        """Decides one check; never raises for want of an answer."""
        answer = self.take(tenant, limit, cost) or await self.ask(tenant, limit, cost)
        return answer.decision

    def take(self, tenant: str, limit: str, cost: int) -> Answer | None:
        """An answer from what is in hand, without waiting; None when the sidecar must be asked."""
        account = self._accounts.get((tenant, limit))
        if account is None:
            account = self._remembered(tenant, limit)
            if account is None:
                return None
        answer = account.take(cost, self._clock())
        if answer is not None and not answer.tally.noted:
            self.usage.note(answer.tally)
        return answer

    async def ask(self, tenant: str, limit: str, cost: int) -> Answer:
        """An answer from the sidecar, or by `on_outage` when it gives none in time."""
        account = self._account(tenant, limit)
        now = self._clock()
        if now < self._retry_at or self._closed:
            answer = self._without_sidecar(account, cost)
        else:
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            account.waiting.append(Waiter(cost, now + self._deadline, future))
            self._enqueue(account)
            answer = await future
        count(answer)
        if not answer.tally.noted:
            self.usage.note(answer.tally)
        return answer

    async def aclose(self) -> None:
        """Gives back what was not spent and reports usage; `on_outage` decides later checks."""
        self._closed = True
        try:
            await self._finish()
        finally:
            await self.usage.aclose()

    async def _finish(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        while self._calls or self._queue:
            if self._calls:
                await asyncio.wait(self._calls)
            else:
                await asyncio.sleep(0)  # the next question is about to be sent
        for _, _, account in self._leases:
            self._give_back(account)
        self._leases.clear()
        while self._returns:
            call = self._gather()
            await self._send(call)
            if self._failing is not None:
                return

    def _account(self, tenant: str, limit: str) -> Account:
        account = self._accounts.get((tenant, limit)) or self._remembered(tenant, limit)
        if account is None:
            account = Account(tenant, limit)
            self._remember(account)
        return account

    def _remembered(self, tenant: str, limit: str) -> Account | None:
        account = self._older.pop((tenant, limit), None)
        if account is not None:
            self._remember(account)
        return account

    def _remember(self, account: Account) -> None:
        if len(self._accounts) >= GENERATION_SIZE:
            self._turn(self._clock())
        self._accounts[account.tenant.id, account.limit] = account

    def _turn(self, now: float) -> None:
        """Begins a new generation; who was not used in the last one is forgotten."""
        self._older, self._accounts = self._accounts, {}
        self._turned_at = now

    def _enqueue(self, account: Account) -> None:
        if not account.asking:
            account.asking = True
            self._queue.append(account)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and len(self._calls) < MAX_IN_FLIGHT:
            # At the end of this turn of the loop, so that all who are ready share the question.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch, context=self._context)

    def _dispatch(self) -> None:
        self._scheduled = False
        if self._clock() - self._turned_at > GENERATION_SECONDS:
            self._turn(self._clock())
        while (self._queue or self._returns) and len(self._calls) < MAX_IN_FLIGHT:
            call = self._gather()
            if not (call.asked or call.returns):
                return
            task = asyncio.get_running_loop().create_task(self._send(call))
            self._calls.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if task.cancelled():
            return  # the loop is ending: another call would outlive it
        if self._queue or (self._returns and self._failing is None):
            self._schedule()

    def _gather(self) -> _Call:
        now = self._clock()
        asked: list[tuple[Account, Ask]] = []
        while self._queue and len(asked) < MAX_ITEMS:
            account = self._queue.popleft()
            if account.returning:
                # Its units are on their way back in another call; asking beside it might come
                # first, and be denied what is about to be free.
                self._parked.add(account)
                continue
            self._give_back(account)
            ask = account.question(f"{self._instance}-{next(self._numbers)}", now)
            if ask is None:
                account.asking = False
            else:
                asked.append((account, ask))
        returns: list[_Return] = []
        while self._returns and len(returns) < MAX_ITEMS:
            back = self._returns.popleft()
            if now < back.until:
                back.account.returning = True
                returns.append(back)
        return _Call(asked, returns)

    async def _send(self, call: _Call) -> None:
        sent = self._clock()
        request = PermitsRequest(
            self._instance,
            [ask for _, ask in call.asked],
            [back.unspent for back in call.returns],
            min(LONGEST_HORIZON, max(SHORTEST_HORIZON, TRIPS_WITHIN * self._trip)),
        )
        try:
            answer = _complete(await self._lease(request), len(call.asked))
            self._arrived(call)
            self._succeed()
            self._outage.instances = answer.instances
            self._receive(call, answer, sent)
        except SidecarError as exc:
            self._fail(exc)
            self._abandon(call)
        except BaseException:
            # Cancelled, or a fault of our own: nobody may wait for ever, and it is not hidden.
            self._abandon(call)
            raise

    def _receive(self, call: _Call, answer: PermitsAnswer, sent: float) -> None:
        now = self._clock()
        # The longest round trip of late: one slow answer must not make the next ones useless.
        self._trip = max(now - sent, 0.9 * self._trip)
        for tier, facts in answer.tiers.items():
            self._upgrades[tier] = facts.upgrades
        for (account, ask), permit in zip(call.asked, answer.permits, strict=True):
            account.asking = False
            facts_of_tier = answer.tiers.get(permit.tier or "")
            account.told(ask, permit, facts_of_tier.features if facts_of_tier else (), now)
            if permit.windows:
                self._outage.learn(ask.limit, permit.windows)
            if permit.reason == "unknown-limit":
                self._say_unknown(ask.limit)
            if permit.reason == "unavailable" and permit.tier is None:
                # The sidecar cannot read who this is: as much an outage as one of its own.
                self._release(account)
            elif not permit.granted:
                account.hold(ask, permit, sent + permit.seconds, now)
            elif now < sent + permit.seconds:
                account.lend(ask, permit, sent + permit.seconds, now)
                if account.lease is not None and account.units:
                    self._watch(account, account.lease)
            elif permit.leased and ask.lease is not None:
                # Too late: charged to a time that has passed, so it must not be spent any more.
                unspent = GiveBack(ask.tenant, ask.limit, ask.lease, permit.granted)
                self._returns.appendleft(_Return(now + RETURN_SECONDS, unspent, account))
            if account.waiting:
                self._ask_again(account, now)

    def _ask_again(self, account: Account, now: float) -> None:
        late = [waiter for waiter in account.waiting if waiter.until <= now]
        for waiter in late:
            account.waiting.remove(waiter)
            self._settle(account, waiter)
        if account.waiting:
            self._enqueue(account)

    def _watch(self, account: Account, lease: str) -> None:
        """Sees to it that what is left of a lease goes back when it ends."""
        self._leases.append((account.ends, lease, account))
        if self._sweep is None:
            self._sweep_at(account.ends)

    def _sweep_at(self, moment: float) -> None:
        delay = max(0.0, moment - self._clock())
        self._sweep = asyncio.get_running_loop().call_later(
            delay, self._sweep_ended, context=self._context
        )

    def _sweep_ended(self) -> None:
        self._sweep = None
        now = self._clock()
        while self._leases and self._leases[0][0] <= now:
            _, lease, account = self._leases.popleft()
            if account.lease == lease:
                self._give_back(account)
        if self._leases:
            self._sweep_at(self._leases[0][0])
        if self._returns:
            self._schedule()

    def _give_back(self, account: Account) -> None:
        unspent = account.unspent()
        if unspent is not None:
            # First in the next call, so that it goes before a question of the same account.
            until = self._clock() + RETURN_SECONDS
            self._returns.appendleft(_Return(until, unspent, account))

    def _arrived(self, call: _Call) -> None:
        """What went back is back, or will be tried again: its accounts may ask."""
        for back in call.returns:
            back.account.returning = False
            if back.account in self._parked:
                self._parked.discard(back.account)
                self._queue.append(back.account)

    def _abandon(self, call: _Call) -> None:
        """Decides all that wait for an answer that will not come; what goes back, goes later."""
        self._retry_at = self._clock() + RETRY_SECONDS
        self._returns.extendleft(reversed(call.returns))
        self._arrived(call)
        for account, _ in call.asked:
            account.asking = False
            self._release(account)

    def _release(self, account: Account) -> None:
        waiting, account.waiting = account.waiting, []
        for waiter in waiting:
            self._settle(account, waiter)

    def _settle(self, account: Account, waiter: Waiter) -> None:
        if not waiter.answer.done():
            waiter.answer.set_result(self._without_sidecar(account, waiter.cost))

    def _without_sidecar(self, account: Account, cost: int) -> Answer:
        tenant = account.tenant
        decision = self._outage.decide(tenant.id, tenant.tier, account.limit, cost, account.windows)
        return Settled(decision, tenant, account.tally)

    def _fail(self, cause: SidecarError) -> None:
        self._refusal = cause if isinstance(cause, Unauthenticated | Forbidden) else None
        if self._failing != type(cause).__name__:
            self._failing = type(cause).__name__
            log.error("no sidecar decides: %s; on_outage=%r does", cause, self._outage.on_outage)

    def _succeed(self) -> None:
        if self._failing is not None:
            self._failing = self._refusal = None
            log.warning("the sidecar decides again: limits are exact")

    def _say_unknown(self, limit: str) -> None:
        if limit not in self._unknown_limits and len(self._unknown_limits) < MAX_ITEMS:
            self._unknown_limits.add(limit)
            log.error("no tier in quotas.toml names the limit %r: nothing limits it", limit)


def _complete(answer: PermitsAnswer, asked: int) -> PermitsAnswer:
    if len(answer.permits) != asked:
        raise UnexpectedAnswer(f"expected {asked} permits, got {len(answer.permits)}")
    return answer
