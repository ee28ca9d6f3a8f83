"""Slots that tenants take turns at: capped for each, work conserving, fair among those who wait.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with turns of one size. There every start tag
is the current one or the next, so two lines are enough: tenants that had no turn in this round, and
tenants that had one and wait for the next round. One who comes anew joins this round, before the
next turn of whoever fills the slots. From the moment a tenant may have a slot until it gets one,
every other tenant gets at most one.

A tenant at its cap is in no line until it gives a slot back: it holds up nobody.
"""

import asyncio
from collections import OrderedDict

Waiter = asyncio.Future[bool]
"""True: it has its slot. False: it was sent away to ask elsewhere."""

_Line = OrderedDict[str, "_Tenant"]


class _Tenant:
    """One tenant that holds or wants slots."""

    __slots__ = ("cap", "in_use", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.cap = 1
        self.in_use = 0
        # Ordered, and quick to leave from the middle: a thousand may give up in any order.
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()


class FairSlots:
    """`size` slots of one event loop.

    Args:
        size: slots that may be in use at once, from 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_use = 0
        self.waiting = 0
        self._tenants: dict[str, _Tenant] = {}
        self._line: _Line = OrderedDict()
        self._next_line: _Line = OrderedDict()
        self._served: set[str] = set()
        self._unused = asyncio.Event()
        self._unused.set()

    async def acquire(self, tenant: str, cap: int) -> bool:
        """Waits for the tenant's turn; first come, first served among its own.

        Args:
            tenant: who asks.
            cap: slots it may have at once, from 1; holds for all of its waiters from now on.

        Returns:
            True with a slot, which goes back by `release`; False if `send_away` came first.
        """
        who = self._tenants.get(tenant)
        if who is None:
            who = self._tenants[tenant] = _Tenant(tenant)
        who.cap = cap
        waiter: Waiter = asyncio.get_running_loop().create_future()
        who.waiting[waiter] = None
        self.waiting += 1
        self._settle(who)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in who.waiting:
                del who.waiting[waiter]
                self.waiting -= 1
                self._settle(who)
            elif not waiter.cancelled() and waiter.result():
                self._pass_on(who)
            raise

    def release(self, tenant: str) -> None:
        """Gives a slot of the tenant's back, to whose turn it is."""
        who = self._tenants[tenant]
        who.in_use -= 1
        self.in_use -= 1
        if not self.in_use:
            self._unused.set()
        self._settle(who)

    def send_away(self, tenant: str) -> None:
        """Answers all that wait for this tenant's turn with False."""
        who = self._tenants.get(tenant)
        if who is None:
            return
        waiters, who.waiting = who.waiting, OrderedDict()
        self.waiting -= len(waiters)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(False)
        self._settle(who)

    def send_all_away(self) -> None:
        """Answers all that wait with False."""
        for tenant in list(self._tenants):
            self.send_away(tenant)

    async def unused(self) -> None:
        """Waits until no slot is in use."""
        await self._unused.wait()

    def use_of(self, tenant: str) -> tuple[int, int]:
        """How many slots the tenant has, and how many wait for one."""
        who = self._tenants.get(tenant)
        return (who.in_use, len(who.waiting)) if who is not None else (0, 0)

    def tenants(self) -> list[str]:
        """Those who hold or want slots."""
        return list(self._tenants)

    def _settle(self, who: _Tenant) -> None:
        """Puts right what follows from a change of one tenant."""
        self._place(who)
        self._dispatch()
        if not self.waiting:
            # Nobody is owed a turn before those who just had one, save before who still holds one.
            self._served.intersection_update(self._tenants)

    def _place(self, who: _Tenant) -> None:
        """Puts a tenant in the line it belongs in, if in any, and forgets who is done."""
        if not who.waiting or who.in_use >= who.cap:
            self._line.pop(who.name, None)
            self._next_line.pop(who.name, None)
            if not (who.waiting or who.in_use):
                self._tenants.pop(who.name, None)
        elif who.name not in self._line and who.name not in self._next_line:
            line = self._next_line if who.name in self._served else self._line
            line[who.name] = who

    def _dispatch(self) -> None:
        while self.in_use < self.size and (self._line or self._next_line):
            if not self._line:
                self._line, self._next_line = self._next_line, self._line
                self._served.clear()
            _, who = self._line.popitem(last=False)
            self._serve(who)
            self._place(who)

    def _serve(self, who: _Tenant) -> None:
        """Gives a free slot to the first that still waits for this tenant's turn, if any does."""
        if self._wake(who):
            self._served.add(who.name)
            who.in_use += 1
            self.in_use += 1
            self._unused.clear()

    def _pass_on(self, who: _Tenant) -> None:
        """Gives a slot whose waiter gave up before it woke to the tenant's next: it is its turn."""
        if who.in_use <= who.cap and self._wake(who):
            self._settle(who)
        else:
            self.release(who.name)

    def _wake(self, who: _Tenant) -> bool:
        while who.waiting:
            waiter, _ = who.waiting.popitem(last=False)
            self.waiting -= 1
            # One whose task was cancelled in this turn of the loop has yet to say so.
            if not waiter.done():
                waiter.set_result(True)
                return True
        return False
