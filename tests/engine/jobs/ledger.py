"""Who got how much while who could have had more: the bound of start-time fair queueing.

Goyal, Vin and Cheng (1996): over every interval in which two flows f and g are backlogged,
|W_f/w_f - W_g/w_g| <= max_f/w_f + max_g/w_g, W the work served, max the dearest job's cost.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

_ROUNDING = 1e-6
"""Tags are sums of floats."""


class Ledger:
    """Starts in order, and who was backlogged and eligible before each.

    Args:
        weights: of all tenants; constant.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self._starts: list[tuple[str, float, frozenset[str]]] = []
        self._dearest: dict[str, float] = {}

    def start(self, tenant: str, cost: float, eligible: frozenset[str]) -> None:
        """A job started; `eligible` could have started one just before."""
        assert tenant in eligible
        self._starts.append((tenant, cost, eligible))
        self._dearest[tenant] = max(cost, self._dearest.get(tenant, 0))

    def now_eligible(self, eligible: frozenset[str]) -> None:
        """Between starts: who is not eligible now was not all the time."""
        self._starts.append(("", 0, eligible))

    def check(self) -> None:
        """Fails with the two tenants and the interval where the bound is broken."""
        for one, other in combinations(sorted(self._dearest), 2):
            bound = self._part(one) + self._part(other) + _ROUNDING
            for spread in self._spreads(one, other):
                assert spread <= bound, f"{one} and {other} are {spread} apart; bound {bound}"

    def _part(self, tenant: str) -> float:
        return self._dearest[tenant] / self.weights[tenant]

    def _spreads(self, one: str, other: str) -> Iterator[float]:
        """Of each interval in which both could start: the most by which one was ahead in it."""
        ahead = low = high = 0.0
        for tenant, cost, eligible in self._starts:
            if one in eligible and other in eligible:
                if tenant in (one, other):
                    sign = 1 if tenant == one else -1
                    ahead += sign * cost / self.weights[tenant]
                    low, high = min(low, ahead), max(high, ahead)
            else:
                yield high - low
                ahead = low = high = 0.0
        yield high - low
