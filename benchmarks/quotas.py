"""Consumes through REST.

Durable ones beside a plain endpoint on the same PostgreSQL, others beside `/v1/check`.
"""

from collections.abc import Mapping
from statistics import median

from benchmarks import setup
from benchmarks.load import drive, post
from benchmarks.plain_quota import TENANTS
from benchmarks.report import Row

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 2.0


async def run(stores: setup.Stores) -> list[Row]:
    """One hot tenant, a thousand tenants, and a resource that lives in Redis alone."""
    plain_app = setup.app(
        "select_for_update",
        stores,
        factory=True,
        module="benchmarks.plain_quota",
        environment={"BENCH_DATABASE_URL": stores.database_url},
    )
    with setup.sidecar(stores) as ours, plain_app as plain:
        return [
            *await _durable(ours, plain, 1, "one tenant"),
            *await _durable(ours, plain, TENANTS, f"{TENANTS:,} tenants"),
            *await _volatile(ours),
        ]


async def _durable(ours: str, plain: str, tenants: int, which: str) -> list[Row]:
    rates = await _rounds(
        {"ours": ours, "plain": plain},
        {
            "ours": [_consume(number, "users") for number in range(tenants)],
            "plain": [
                post(f"/tenants/tenant-{number}/consume", b'{"amount":1}', setup.TOKEN)
                for number in range(tenants)
            ],
        },
    )
    what = f"durable consumes/s, {which}, {CONNECTIONS} connections"
    beside = "FastAPI, SQLAlchemy async, SELECT FOR UPDATE"
    return [_row(what, rates, "ours", "plain", beside, ">= 2")]


async def _volatile(ours: str) -> list[Row]:
    rates = await _rounds(
        {"slots": ours, "check": ours},
        {
            "slots": [_consume(number, "slots") for number in range(TENANTS)],
            "check": [
                post("/v1/check", b'{"tenant":"tenant-%d"}' % number, setup.TOKEN)
                for number in range(TENANTS)
            ],
        },
    )
    what = f"non-durable consumes/s, {TENANTS:,} tenants, {CONNECTIONS} connections"
    return [_row(what, rates, "slots", "check", "/v1/check", ">= 0.6")]


async def _rounds(
    urls: Mapping[str, str], requests: Mapping[str, list[bytes]]
) -> dict[str, list[float]]:
    """Requests a second of each, in turn, so that a noisy moment hits all alike."""
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for name, url in urls.items():
        await drive(url, requests[name], connections=CONNECTIONS, seconds=1)
    for _ in range(ROUNDS):
        for name, url in urls.items():
            load = await drive(url, requests[name], connections=CONNECTIONS, seconds=SECONDS)
            rates[name].append(load.rate)
    return rates


def _consume(number: int, resource: str) -> bytes:
    path = f"/v1/tenants/tenant-{number}/quotas/consume"
    return post(path, b'{"items":{"%s":1}}' % resource.encode(), setup.TOKEN)


def _row(
    what: str, rates: Mapping[str, list[float]], ours: str, peer: str, beside: str, wanted: str
) -> Row:
    ratio = median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
    return Row(what, median(rates[ours]), median(rates[peer]), beside, ratio, wanted)
