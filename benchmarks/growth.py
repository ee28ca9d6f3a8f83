"""Cost per check as tenants grow: ten, then a hundred thousand."""

from statistics import median

from benchmarks import setup
from benchmarks.checks import CHECKS, CONNECTIONS, batches
from benchmarks.load import drive
from benchmarks.report import Row

FEW, MANY = 10, 100_000
ROUNDS = 5
SECONDS = 2.0


async def run(stores: setup.Stores) -> list[Row]:
    """Microseconds a check at saturation; every tenant has been seen once before."""
    few = batches([f"tenant-{number}" for number in range(FEW)])
    many = batches([f"tenant-{number}" for number in range(MANY)])
    costs: dict[str, list[float]] = {"few": [], "many": []}
    with setup.sidecar(stores) as url:
        cold = await drive(url, many, connections=CONNECTIONS)
        await drive(url, few, connections=CONNECTIONS, seconds=1)
        for _ in range(ROUNDS):
            for name, requests in (("few", few), ("many", many)):
                load = await drive(url, requests, connections=CONNECTIONS, seconds=SECONDS)
                costs[name].append(1e6 / (load.rate * CHECKS))
    ratio = median(a / b for a, b in zip(costs["many"], costs["few"], strict=True))
    ten = median(costs["few"])
    first = 1e6 / (cold.rate * CHECKS)
    return [
        Row(
            f"/v1/checks, µs a check, {MANY:,} tenants",
            median(costs["many"]),
            ten,
            f"{FEW} tenants",
            ratio,
            "<= 1.5",
        ),
        Row(
            f"/v1/checks, µs a check, {MANY:,} tenants never seen before",
            first,
            ten,
            f"{FEW} tenants",
            first / ten,
        ),
    ]
