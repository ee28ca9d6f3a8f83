"""A host app that spends what it leased at the worst moment, under a clock that is set back."""

from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from partywall_service.engine.base import SUB_BUCKETS, Ask, Verdict
from tests.engine.harness import START, Subject

SECOND = 1_000_000


class Grant(NamedTuple):
    """What becomes of what an ask is granted.

    Attributes:
        spent_after: real microseconds from the ask until its units are spent, or as long as they
            last if that is less.
        returned: how many of them are given back instead.
        returned_after: real microseconds until then; sent `times` times.
        times: how often that is sent.
        asked_again_after: real microseconds until something on the way sends the ask once more, or
            as long as what is needed lasts; None if nothing does. The second answer is believed.
    """

    spent_after: int
    returned: int = 0
    returned_after: int = 0
    times: int = 1
    asked_again_after: int | None = None


class HostApp:
    """Spends checks at once and leases when told, and keeps account of it.

    There are two times: real time, in which a lease's horizon passes, and Redis's clock, which may
    be set back or stand still meanwhile. A window goes by the clock, save that it never goes back
    before the newest sub-bucket in which it was charged.

    Attributes:
        clock: what Redis takes the time to be, in microseconds.
        spent: for each window: the moments in its own time, and what was spent then.
        spent_really: the real moments, and what was spent then.
    """

    def __init__(self, subject: Subject) -> None:
        self.clock = START
        self.spent: list[list[tuple[int, int]]] = [[] for _ in subject.rates]
        self.spent_really: list[tuple[int, int]] = []
        self._subject = subject
        self._real = START
        self._newest = [0 for _ in subject.rates]
        self._due: list[tuple[int, int, str, int]] = []
        self._leases = count()
        self._orders = count()

    def wait(self, real: int, *, frozen: bool = False) -> None:
        """Lets real time pass, and with it the clock unless that stands still."""
        end = self._real + real
        while self._due and self._due[0][0] <= end:
            moment, _, lease, units = heappop(self._due)
            self._pass(moment - self._real, frozen=frozen)
            if lease:
                self._subject.give_back(self.clock, lease, units)
            else:
                self._spend(units)
        self._pass(end - self._real, frozen=frozen)

    def wait_for_room(self, cost: int) -> None:
        """Waits until a check of this cost would just be admitted, absent other traffic."""
        wait = self._subject.check(self.clock, cost, dry_run=True).retry_after
        self.wait(round((wait or 0) * SECOND))

    def set_clock_back(self, by: int) -> None:
        """Steps Redis's clock back."""
        self.clock -= by

    def check(self, cost: int) -> Verdict:
        """Checks, and spends at once if it may."""
        verdict = self._subject.check(self.clock, cost)
        if verdict.allowed:
            self._charged()
            self._spend(cost)
        return verdict

    def ask(self, question: Ask, then: Grant) -> Verdict:
        """Asks for a lease, and sees to it that its units are spent and returned as told."""
        asked = self._real
        question = question._replace(lease=f"lease-{next(self._leases)}")
        verdict = self._ask(question)
        if then.asked_again_after is not None:
            self.wait(min(then.asked_again_after, question.lasts(0)))
            verdict = self._ask(question)
        if verdict.allowed:
            returned = min(then.returned, verdict.granted)
            spent_after = min(then.spent_after, question.lasts(verdict.granted))
            self._at(max(asked + spent_after, self._real), "", verdict.granted - returned)
            for _ in range(then.times if returned else 0):
                self._at(self._real + then.returned_after, question.lease, returned)
        return verdict

    def _ask(self, question: Ask) -> Verdict:
        verdict = self._subject.answer(self.clock, question)
        if verdict.allowed:
            self._charged()
        return verdict

    def _pass(self, real: int, *, frozen: bool) -> None:
        self._real += real
        self.clock += 0 if frozen else real

    def _at(self, moment: int, lease: str, units: int) -> None:
        heappush(self._due, (moment, next(self._orders), lease, units))

    def _charged(self) -> None:
        for place, rate in enumerate(self._subject.rates):
            now = self.clock * SUB_BUCKETS // (rate.window * SECOND)
            self._newest[place] = max(self._newest[place], now)

    def _spend(self, units: int) -> None:
        self.spent_really.append((self._real, units))
        for place, rate in enumerate(self._subject.rates):
            newest = self._newest[place] * rate.window * SECOND // SUB_BUCKETS
            self.spent[place].append((max(self.clock, newest), units))


def heaviest(spent: list[tuple[int, int]], window: int) -> int:
    """The most that was spent in any closed interval of the window's length, in seconds."""
    return max(
        (
            sum(units for then, units in spent if end - window * SECOND <= then <= end)
            for end, _ in spent
        ),
        default=0,
    )
