"""An installation with something to see: tenants in all states, traffic, jobs, a month of usage."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from arq.worker import func
from sqlalchemy import insert

from partywall_service.ledger.engine import create_ledger_engine
from partywall_service.ledger.tables import usage_days, usage_hours
from partywall_service.usage.partitions import USAGE_DAYS, USAGE_HOURS, ensure
from partywall_service.usage.source import Point
from partywall_service.usage.spans import instant_of, minute_of
from partywall_service.usage.store import UsageStore
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.acceptance.asking import checks, put_tenant
from tests.servers.workers.working import Work
from tests.support.sidecar import QUOTAS, Sidecar

POLICY = f"""{QUOTAS}
[tiers.free.limits.exports]
rate = "20/minute"
enforce = false

[tiers.pro.limits.exports]
rate = ["5/second", "200/hour"]
"""
"""The one that ships, with a limit that is observed only."""

HOSTILE = """<script>alert("1")</script> O'Hara & "Sons" <img src=x onerror=alert(2)>"""
LONGEST = "l" * 127 + "g"
CROWD = 60
"""Tenants of whom nothing but the name is known: more than one page of a list."""

_TENANTS: dict[str, dict[str, Any]] = {
    "acme": {"tier": "pro", "name": "Acme GmbH", "domains": ["acme.example", "shop.acme.example"]},
    "clinic": {"tier": "free", "name": "Quiet Clinic"},
    "hammer": {"tier": "free", "name": "Hammer & Daughters"},
    "globex": {"tier": "enterprise", "name": "Globex Corporation"},
    "newcomer": {"tier": "free", "name": "Newcomer", "status": "provisioning"},
    "parted": {"tier": "enterprise", "name": "Parted Ltd", "status": "suspended"},
    "o-hara": {"tier": "free", "name": HOSTILE},
    LONGEST: {"tier": "free", "name": "Donaudampfschifffahrtsgesellschaft" * 5},
}

_MIB = 2**20


async def fill(sidecar: Sidecar, client: httpx.AsyncClient) -> None:
    """Makes it all, by the API where the API can."""
    for tenant, body in _TENANTS.items():
        await put_tenant(client, tenant, **body)
    crowd = [{"tenant": f"t-{n:03}", "tier": "free", "name": f"Tenant {n}"} for n in range(CROWD)]
    await _done(client.post("/v1/tenants/import", json=crowd))
    await asyncio.gather(_decide(client), _consume(client), _override(client))
    await _work(sidecar, client)
    await _remember(sidecar.env["PARTYWALL_DATABASE_URL"], datetime.now(UTC))


async def _decide(client: httpx.AsyncClient) -> None:
    """Decisions admitted, denied and observed, also of a tenant that nobody registered."""
    asked = {("acme", "requests"): 420, ("acme", "exports"): 4, ("hammer", "requests"): 400}
    asked |= {("hammer", "exports"): 30, ("globex", "requests"): 150, ("walk-in", "requests"): 12}
    for (tenant, limit), count in asked.items():
        await checks(client, [{"tenant": tenant, "limit": limit}] * count)


async def _consume(client: httpx.AsyncClient) -> None:
    for tenant, items in (
        ("acme", {"users": 31, "projects": 25, "storage": 41_000 * _MIB, "emails": 8_700}),
        ("acme", {"cache_keys": 120, "api_keys": 9}),
        ("globex", {"users": 1_204, "storage": 900_000 * _MIB}),
        ("clinic", {"users": 2, "projects": 1}),
        (LONGEST, {"users": 4}),
    ):
        await _done(client.post(f"/v1/tenants/{tenant}/quotas/consume", json={"items": items}))
    reserved = {"items": {"users": 3}, "ttl": 3600}
    await _done(client.post("/v1/tenants/acme/quotas/reserve", json=reserved))
    recounted = {"used": 6, "reason": "counted by hand after the move, see ticket 4711"}
    await _done(client.put("/v1/tenants/hammer/quotas/users", json=recounted))


async def _override(client: httpx.AsyncClient) -> None:
    ends = (datetime.now(UTC) + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for path, body in (
        ("limits/requests", {"value": "3000/minute", "expires_at": ends, "reason": "launch week"}),
        ("quotas/storage", {"value": "80 GiB", "reason": "bought 30 GiB more, order 2026-118"}),
        ("jobs/concurrency", {"value": 12, "reason": HOSTILE}),
    ):
        await _done(client.put(f"/v1/tenants/acme/overrides/{path}", json=body))


async def _work(sidecar: Sidecar, client: httpx.AsyncClient) -> None:
    """Jobs that succeeded, failed for good, run, wait and are deferred."""

    async def send_email(_ctx: dict[Any, Any], to: str) -> str:
        return f"sent to {to}"

    async def sync_ledger(_ctx: dict[Any, Any], page: int) -> None:
        raise ConnectionError(f"page {page}: the ledger at https://ledger.example/v2 hung up")

    async def build_report(_ctx: dict[Any, Any]) -> None:
        """Is never begun."""

    async def queued(tenant: str, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            await _done(client.post(f"/v1/tenants/{tenant}/jobs", json=body))

    url, prefix = sidecar.env["PARTYWALL_REDIS_URL"], sidecar.env["PARTYWALL_KEY_PREFIX"]
    redis = FairRedis.from_url(url, queue_name=f"{prefix}:jobs")
    work = Work(FairQueue(redis), url)
    email = {"function": "send_email", "args": ["a@b.example"]}
    await queued("acme", email, email, {"function": "sync_ledger", "args": [7]})
    functions = {one.__name__: one for one in (send_email, sync_ledger, build_report)}
    await work.burst(*(func(one, name=name) for name, one in functions.items()), max_tries=1)
    await queued("acme", {"function": "build_report", "job_id": "report-2026-11"})
    assert len(await work.claim()) == 1
    await queued("acme", *[email] * 5, {**email, "defer_by": 3600})
    await queued("hammer", *[{"function": "build_report"}] * 20)
    await _done(client.post("/v1/tenants/hammer/jobs/pause"))
    await queued("newcomer", {"function": "build_report"})
    await redis.aclose(close_connection_pool=True)


async def _remember(database: str, now: datetime) -> None:
    """Usage of 30 days, as the roll-up would have left it: days, hours since yesterday, minutes."""
    hour = minute_of(now) // 60 * 60
    today = hour // 1440 * 1440
    minutes = [
        Point(tenant, minute, meter, value)
        for minute in range(hour - 60, minute_of(now))
        for tenant, meter, value in _used(minute, 1)
    ]
    async with AsyncExitStack() as stack:
        engine = create_ledger_engine(database)
        stack.push_async_callback(engine.dispose)
        await UsageStore(engine).upsert(minutes)  # and what these hours come to is read from them
        connection = await stack.enter_async_context(engine.begin())
        for table, kept, starts, length in (
            (usage_hours, USAGE_HOURS, range(today - 1440, hour - 60, 60), 60),
            (usage_days, USAGE_DAYS, range(today - 30 * 1440, today, 1440), 1440),
        ):
            await ensure(connection, kept, [instant_of(start) for start in starts])
            rows = [
                {"tenant": tenant, "meter": meter, "start": instant_of(start), "value": value}
                for start in starts
                for tenant, meter, value in _used(start, length)
            ]
            await connection.execute(insert(table), rows)


def _used(start: int, length: int) -> Iterator[tuple[str, str, int]]:
    """What a step of so many minutes came to: more by day, and more each day.

    The clinic's requests take ten times as long in the hour that runs.
    """
    middle = start + length / 2
    wave = 1 + 0.6 * math.sin(2 * math.pi * (middle / 1440 - 0.3)) * (length < 1440)
    wave *= 1 + 0.3 * math.sin(2 * math.pi * middle / (7 * 1440)) + (start // 1440 % 5) / 20
    slow = 10 if length == 1 else 1
    for tenant, rate, latency in (("acme", 60, 30_000), ("clinic", 2, 20_000 * slow)):
        count = round(rate * wave * length)
        counted: Callable[[float], int] = lambda part, count=count: round(count * part)  # noqa: E731
        yield tenant, "limits.requests.admitted", counted(1)
        yield tenant, "limits.requests.denied", counted(0.04 + 0.02 * math.sin(middle / 500))
        yield tenant, "requests.2xx", counted(0.9)
        yield tenant, "requests.3xx", counted(0.03)
        yield tenant, "requests.4xx", counted(0.06)
        yield tenant, "requests.5xx", counted(0.01)
        yield tenant, "requests.in_flight_seconds", count * latency
        if tenant == "acme":
            yield tenant, "limits.exports.would_deny", counted(0.01)
            yield tenant, "jobs.started", counted(0.1)
            yield tenant, "jobs.succeeded", counted(0.09)
            yield tenant, "jobs.failed", counted(0.01)
            yield tenant, "jobs.run_seconds", count * 25_000
            yield tenant, "jobs.wait_seconds", count * 9_000
            yield tenant, "quotas.users.used", 20 + start // 1440 % 12
            yield tenant, "quotas.storage.used", round(30_000 + 300 * (start / 1440 % 30)) * _MIB


async def _done(asking: Any) -> None:
    answer: httpx.Response = await asking
    assert answer.status_code < 300, f"{answer.url}: {answer.text}"
