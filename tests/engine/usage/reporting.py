"""Reports and reporters, for tests of what becomes of them."""

from collections import Counter
from collections.abc import Iterable

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.usage.source import Point

MINUTE = 60_000_000
PATIENT = 30.0

ADMITTED = "limits.requests.admitted"
IN_FLIGHT = "requests.in_flight_seconds"


def report(
    *tenants: str, sequence: int = 1, instance: str = "one", age: float = 0.0, **meters: int
) -> UsageReport:
    """A report of the same counts for each of the tenants; one admitted request, unless told."""
    counts = {ADMITTED: 1} | {meter.replace("_", "."): n for meter, n in meters.items()}
    return UsageReport(instance, sequence, age, [TenantUsage(t, dict(counts)) for t in tenants])


def totals(points: Iterable[Point]) -> dict[tuple[str, str], int]:
    """By tenant and meter, over all minutes."""
    sums: Counter[tuple[str, str]] = Counter()
    for point in points:
        sums[point.tenant, point.meter] += point.value
    return dict(sums)


class Clock:
    """Microseconds since the epoch that pass when told to."""

    def __init__(self, minute: int = 29_000_000) -> None:
        self.minute = minute

    def __call__(self) -> int:
        return self.minute * MINUTE + MINUTE // 2
