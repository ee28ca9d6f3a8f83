"""One way to ask every engine: at a given microsecond, from a test that is not asynchronous."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from partywall_service.engine.base import (
    LONGEST_HORIZON,
    Ask,
    Check,
    Question,
    Return,
    Verdict,
)
from partywall_service.policy.model import Rate

START = 1_700_000_000_000_000
"""A microsecond since the epoch to begin at."""

_tenants = count()


class Harness:
    """An engine under test.

    Attributes:
        name: which one.
        snapshot: what it keeps of a tenant's windows, comparable; to prove that nothing changed.
    """

    def __init__(
        self,
        name: str,
        runner: asyncio.Runner,
        decide: Callable[[Sequence[Question], int], Awaitable[list[Verdict]]],
        snapshot: Callable[[str, tuple[Rate, ...]], Coroutine[Any, Any, list[dict[Any, Any]]]],
    ) -> None:
        self.name = name
        self._runner = runner
        self._decide = decide
        self._snapshot = snapshot

    def decide(self, checks: Sequence[Question], now: int) -> list[Verdict]:
        """Decides a batch at `now`, in microseconds since the epoch."""

        async def run() -> list[Verdict]:
            return await self._decide(checks, now)

        return self._runner.run(run())

    def snapshot(self, tenant: str, rates: tuple[Rate, ...]) -> list[dict[Any, Any]]:
        """What the engine keeps of each of the tenant's windows."""
        return self._runner.run(self._snapshot(tenant, rates))


class Subject:
    """One tenant's one limit, new with every use: no example sees another's windows."""

    def __init__(self, harness: Harness, *rates: tuple[int, int]) -> None:
        self._harness = harness
        self.rates = tuple(Rate(*rate) for rate in rates)
        self.tenant = f"t{next(_tenants)}"

    def answer(self, now: int, question: Question) -> Verdict:
        """Answers one question at `now`."""
        return self._harness.decide([question], now)[0]

    def check(self, now: int, cost: int = 1, *, dry_run: bool = False) -> Verdict:
        """Decides one check at `now`."""
        return self.answer(now, self.asks(cost, dry_run=dry_run))

    def lease(
        self, now: int, cost: int = 1, need: int = 0, ahead: int = 0, lease: str = ""
    ) -> Verdict:
        """Asks for a lease at `now`; a `need` left out is the cost."""
        return self.answer(now, self.leases(cost, need, ahead, lease))

    def give_back(self, now: int, lease: str, units: int) -> Verdict:
        """Returns units of a lease at `now`."""
        return self.answer(now, self.returns(lease, units))

    def snapshot(self) -> list[dict[Any, Any]]:
        """What the engine keeps of its windows, one mapping each."""
        return self._harness.snapshot(self.tenant, self.rates)

    def asks(self, cost: int = 1, *, dry_run: bool = False) -> Check:
        """A check of this limit, for a batch."""
        return Check(self.tenant, "requests", self.rates, cost, dry_run)

    def leases(
        self,
        cost: int = 1,
        need: int = 0,
        ahead: int = 0,
        lease: str = "",
        within: int = LONGEST_HORIZON,
    ) -> Ask:
        """A question for a lease of this limit, for a batch."""
        need = max(cost, need)
        return Ask(self.tenant, "requests", self.rates, cost, need, ahead, lease, within)

    def returns(self, lease: str, units: int) -> Return:
        """A return of a lease of this limit, for a batch."""
        return Return(self.tenant, "requests", self.rates, lease, units)
