"""A street of SDK processes on one sidecar, in virtual time: real permits, the reference engine.

Between them stands a network that delays, loses answers and repeats requests.
"""

import asyncio
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable

from partywall.errors import SidecarUnavailable
from partywall.permits import Permits
from partywall.protocol import LONGEST_HOLD, Permit, PermitsAnswer, PermitsRequest
from partywall_service.engine.base import Ask, Question, Return
from partywall_service.engine.memory import MemoryEngine
from partywall_service.policy.model import Rate

EPOCH = 1_700_000_000.0


class Street:
    """Processes, a network, and a sidecar.

    Attributes:
        used: for each tenant, when each admitted unit was used, by the virtual clock.
        by_process: units that each process admitted, by tenant and process.
        processes: all that there ever were.
        skew: seconds by which Redis's clock is off.
        latency: seconds one way, drawn anew for each message.
        lost: the chance that an answer is lost, repeated: that a request arrives twice.
    """

    def __init__(self, rates: tuple[Rate, ...], seed: int = 0) -> None:
        self.rates = rates
        self.random = random.Random(seed)
        self.skew = 0.0
        self.latency: Callable[[], float] = lambda: self.random.uniform(0.0002, 0.002)
        self.lost = self.repeated = 0.0
        self.questions = 0
        self.used: dict[str, list[float]] = defaultdict(list)
        self.by_process: dict[tuple[str, int], int] = defaultdict(int)
        self.processes: list[Permits] = []
        self._engine = MemoryEngine()
        self._loop = asyncio.get_running_loop()

    def process(self, **options: object) -> Permits:
        """A process of a host app, closed to all in an outage."""
        settings = {"on_outage": "closed", "clock": self._loop.time, **options}
        one = Permits(self.lease, **settings)  # type: ignore[arg-type] # a test's own options
        self.processes.append(one)
        return one

    async def lease(self, request: PermitsRequest) -> PermitsAnswer:
        """The sidecar, at the other end of the network."""
        await asyncio.sleep(self.latency())
        answer = self._answer(request)
        if self.random.random() < self.repeated:
            answer = self._answer(request)
        await asyncio.sleep(self.latency())
        if self.random.random() < self.lost:
            raise SidecarUnavailable("the answer was lost")
        return answer

    async def check(self, permits: Permits, number: int, tenant: str, cost: int = 1) -> bool:
        """One request of a tenant, at one process."""
        decision = await permits.decide(tenant, "requests", cost)
        if decision.allowed and not decision.degraded:
            self.used[tenant] += [self._loop.time()] * cost
            self.by_process[tenant, number] += cost
        return decision.allowed

    def heaviest(self, tenant: str, window: float) -> int:
        """The most units used in any interval of the window's length."""
        used = self.used[tenant]
        return max(
            (place + 1 - bisect_left(used, end - window) for place, end in enumerate(used)),
            default=0,
        )

    def _answer(self, request: PermitsRequest) -> PermitsAnswer:
        self.questions += 1
        questions: list[Question] = [
            Return(one.tenant, one.limit, self.rates, one.lease, one.units)
            for one in request.returns
        ]
        questions += [
            Ask(
                ask.tenant,
                ask.limit,
                self.rates,
                ask.cost,
                ask.need,
                ask.ahead,
                ask.lease or "",
                round(request.within * 1e6),
            )
            for ask in request.asks
        ]
        now = EPOCH + self._loop.time() + self.skew
        verdicts = [self._engine.decide_now(question, now) for question in questions]
        permits = []
        first = len(request.returns)
        for question, verdict in zip(questions[first:], verdicts[first:], strict=True):
            assert isinstance(question, Ask)
            if verdict.allowed:
                permits.append(
                    Permit(
                        True,
                        "free",
                        granted=verdict.granted,
                        seconds=question.lasts(verdict.granted) / 1e6,
                        leased=verdict.granted > question.need,
                        windows=verdict.windows,
                    )
                )
            else:
                wait = verdict.retry_after
                permits.append(
                    Permit(
                        False,
                        "free",
                        reason="limit-exceeded",
                        seconds=LONGEST_HOLD if wait is None else min(LONGEST_HOLD, wait),
                        retry_after=wait,
                        windows=verdict.windows,
                    )
                )
        return PermitsAnswer(permits)
