"""A tenant's way into a real sidecar and out: held until it is ready, exported, then erased."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis.asyncio
from typer.testing import CliRunner

from partywall_service.cli import app
from partywall_service.ledger import create_ledger_engine
from partywall_service.ledger.tables import metadata
from partywall_service.usage.source import Point
from partywall_service.usage.spans import minute_of
from partywall_service.usage.store import UsageStore
from partywall_workers.keys import queue_name
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.acceptance.asking import check, fresh_tenant, put_tenant, until
from tests.servers.workers.working import Held, Work
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar
from tests.support.traces import keys_with, rows_with

QUOTAS = """
[tiers.free.limits]
requests = "5/minute"
exports = "1000/minute"
[tiers.free.quotas]
users = 5
slots = 5
[resources.slots]
durable = false
[tiers.pro]
extends = "free"
"""

ELSEWHERE = {"usage_pending", "usage_state", "usage_gone"}
"""Tables that have no tenant's id."""


class Site:
    """A sidecar with its stores, and a worker's queue.

    Attributes:
        tenant: who comes and goes.
        admin: a client.
        held: a job that runs until it is told to end, or is cancelled.
    """

    def __init__(self, one: Sidecar, admin: httpx.AsyncClient, store: redis.asyncio.Redis) -> None:
        self.tenant = fresh_tenant()
        self.path = f"/v1/tenants/{self.tenant}"
        self.admin = admin
        self.prefix = one.env["PARTYWALL_KEY_PREFIX"]
        self.database = one.env["PARTYWALL_DATABASE_URL"]
        self.store = store
        self.held = Held()
        self.work = Work(
            FairQueue(
                FairRedis.from_url(
                    one.env["PARTYWALL_REDIS_URL"], queue_name=queue_name(self.prefix)
                )
            ),
            one.env["PARTYWALL_REDIS_URL"],
        )

    async def keys(self) -> list[str]:
        return await keys_with(self.store, self.tenant, self.prefix)

    async def rows(self) -> dict[str, list[str]]:
        return await rows_with(self.database, self.tenant)

    async def post(self, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self.admin.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return dict(answer.json())

    async def live(self) -> str:
        """Does everything that a tenant can do, once or more; its own token's secret."""
        tenant, path = self.tenant, self.path
        await put_tenant(self.admin, tenant, domains=[f"{tenant}.example"], name=f"The {tenant}")
        override = {"value": 6, "reason": f"for {tenant}"}
        answer = await self.admin.put(f"{path}/overrides/quotas/users", json=override)
        assert answer.is_success, answer.text
        token = await self.post("/v1/tokens", {"scope": f"tenant:{tenant}", "name": f"{tenant}'s"})
        for _ in range(7):
            await check(self.admin, tenant)
        ask = {"tenant": tenant, "limit": "exports", "ahead": 5, "lease": "lease-1"}
        await self.post("/v1/permits", {"instance": "an-app", "asks": [ask]})
        for items in ({"users": 1}, {"slots": 1}, {"users": 1, "slots": 1}):
            await self.post(f"{path}/quotas/consume", {"items": items}, key="+".join(items))
            await self.post(f"{path}/quotas/reserve", {"items": items})
        assert not (await self.post(f"{path}/quotas/consume", {"items": {"users": 6}}))["allowed"]
        await self.post(f"{path}/jobs", {"function": "held", "args": [tenant]})
        await self.post(f"{path}/jobs", {"function": "quick"}, key="once")
        await self.post(f"{path}/jobs", {"function": "quick", "defer_by": 600})
        await self.report("an-app", 1, age=0.5)
        await self._past()
        return str(token["token"])

    async def report(self, instance: str, sequence: int, age: float) -> int:
        """Reports what an app counted; how many tenants were counted of it."""
        usage = [{"tenant": self.tenant, "meters": {"requests.2xx": 3}}]
        body = {"instance": instance, "sequence": sequence, "age": age, "usage": usage}
        return int((await self.post("/v1/usage", body))["applied"])

    async def _past(self) -> None:
        """What the roll-up, the judge and notices leave."""
        engine = create_ledger_engine(self.database)
        store = UsageStore(engine)
        then = minute_of(datetime.now(UTC) - timedelta(hours=30))
        await store.upsert([Point(self.tenant, then, "limits.requests.admitted", 7)])
        await store.aggregate(datetime.now(UTC))
        await engine.dispose()
        async with await psycopg.AsyncConnection.connect(self.database) as connection:
            await connection.execute(
                "INSERT INTO neighbours VALUES (%s, now(), 3600, 'free', 1, 1, 1, 1, 1, 1,"
                " 'requests', 'noisy', 'It took much.')",
                [self.tenant],
            )
            body = json.dumps({"tenant": self.tenant})
            await connection.execute(
                "INSERT INTO notices (id, kind, tenant, body) VALUES (%s, 'tenant.noisy', %s, %s)",
                [f"n-{self.tenant[-6:]}", self.tenant, body],
            )


async def quick(_ctx: dict[str, Any], *_args: Any) -> str:
    return "done"


@pytest.fixture(scope="module")
def one(test_run: TestRun) -> Iterator[Sidecar]:
    with shared_sidecars(test_run, QUOTAS) as (sidecar,):
        yield sidecar


@pytest.fixture
async def site(one: Sidecar, redis_client: redis.asyncio.Redis) -> AsyncIterator[Site]:
    """With a worker, whose leases are so short that it soon hears of what is erased."""
    async with one.client() as admin:
        site = Site(one, admin, redis_client)
        async with site.work.running(quick, site.held.function(), lease=1.0):
            yield site
            site.held.end()
        await site.work.redis.aclose(close_connection_pool=True)


async def test_who_is_being_provisioned_is_answered_but_runs_no_job_until_active(
    site: Site,
) -> None:
    content = f"tenant,tier\n{site.tenant},free\n"
    sent: dict[str, Any] = {
        "params": {"new_status": "provisioning"},
        "headers": {"Content-Type": "text/csv"},
        "content": content.encode(),
    }
    answer = await site.admin.post("/v1/tenants/import", **sent)
    assert answer.json() == {"created": 1, "updated": 0, "unchanged": 0}
    assert (await check(site.admin, site.tenant))["allowed"]
    ask = {"tenant": site.tenant, "limit": "exports", "ahead": 5, "lease": "lease-1"}
    permits = await site.post("/v1/permits", {"instance": "an-app", "asks": [ask]})
    assert permits["permits"][0]["granted"] == 6
    assert (await site.post(f"{site.path}/quotas/consume", {"items": {"users": 1, "slots": 1}}))[
        "allowed"
    ]
    job = await site.post(f"{site.path}/jobs", {"function": "quick"})

    async def held() -> bool:
        queues = (await site.admin.get("/v1/queues")).json()["tenants"]
        return any(
            (one["tenant"], one["held"], one["queued"]) == (site.tenant, "provisioning", 1)
            for one in queues
        )

    async def status() -> str:
        return str((await site.admin.get(f"{site.path}/jobs/{job['job_id']}")).json()["status"])

    async def succeeded() -> bool:
        return await status() == "succeeded"

    await until(held)
    other = await put_tenant(site.admin, fresh_tenant())
    passed = await site.post(f"/v1/tenants/{other['tenant']}/jobs", {"function": "quick"})

    async def overtaken() -> bool:
        path = f"/v1/tenants/{other['tenant']}/jobs/{passed['job_id']}"
        return bool((await site.admin.get(path)).json()["status"] == "succeeded")

    await until(overtaken)  # the worker was there for it
    assert await status() == "queued"
    await put_tenant(site.admin, site.tenant, status="active")
    await until(succeeded)
    # The list once more: who is in use stays so.
    answer = await site.admin.post("/v1/tenants/import", **sent)
    assert answer.json() == {"created": 0, "updated": 0, "unchanged": 1}
    assert (await site.admin.get(site.path)).json()["status"] == "active"


async def exported(site: Site) -> list[dict[str, Any]]:
    answer = await site.admin.get(f"{site.path}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    begin, *rest, end = lines
    assert (begin["kind"], begin["tenant"]) == ("begin", site.tenant)
    assert end == {"kind": "end", "lines": len(lines) - 1}
    return rest


async def test_all_is_told_and_then_nothing_is_left_but_one_line(site: Site) -> None:
    secret = await site.live()
    await site.held.running()
    await until(lambda: finished(site))

    rows = await site.rows()
    tables = {table.name for table in metadata.tables.values()} - ELSEWHERE
    missing = [name for name in tables if not any(row.startswith(name) for row in rows)]
    assert missing == []  # so each is looked for
    keys = await site.keys()
    for part in (":window:", ":lease:", ":usage", ":quota:", ":jobs:job:", "arq:job:", ":metered"):
        assert any(part in key for key in keys), part

    told = await exported(site)
    kinds = Counter(line["kind"] for line in told)
    assert kinds.keys() == {
        *("tenant", "domain", "override", "token", "quota", "reservation", "operation", "ledger"),
        *("window", "lease", "redis", "job_queue", "job", "usage", "neighbour", "notice", "audit"),
    }
    assert (kinds["job"], kinds["reservation"], kinds["override"]) == (3, 2, 1)
    users, slots = (line for line in told if line["kind"] == "quota")
    assert (users["used"], users["reserved"], users["durable"]) == (2, 2, True)
    assert (slots["used"], slots["reserved"], slots["durable"]) == (2, 2, False)
    meters = Counter(line["meter"] for line in told if line["kind"] == "usage")
    assert meters["limits.requests.admitted"] == 4  # a minute, an hour, a day; and now
    assert meters["requests.2xx"] == 1
    assert secret not in json.dumps(told)
    assert secret.rpartition("_")[2] not in json.dumps(told)

    for actor in range(2):
        assert (await site.admin.delete(site.path)).status_code == 204, actor
        assert await site.keys() == []
        assert list(await site.rows()) == ["audit"]
    (line,) = (await site.admin.get("/v1/audit", params={"tenant": site.tenant})).json()["entries"]
    assert (line["actor"], line["action"]) == ("admin", "tenant.erased")
    assert line["detail"]["tier"] == "free"
    erased = line["detail"]["erased"]
    assert (erased["jobs"], erased["tokens"], erased["overrides"], erased["domains"]) == (
        3,
        1,
        1,
        1,
    )
    assert site.tenant not in json.dumps(line["detail"])
    assert (await site.admin.get(f"{site.path}/export")).status_code == 404

    # What is late for it is dropped, and so is what its job that ran would say.
    assert await site.report("an-app", 2, age=30) == 0
    site.held.end()
    assert await site.report("another", 1, age=0) == 0
    assert await site.keys() == []
    assert list(await site.rows()) == ["audit"]


async def finished(site: Site) -> bool:
    jobs = (await site.admin.get(f"{site.path}/jobs")).json()["jobs"]
    return Counter(job["status"] for job in jobs) == {"running": 1, "succeeded": 1, "deferred": 1}


async def test_who_comes_back_starts_from_zero(site: Site) -> None:
    await site.live()
    assert (await site.admin.delete(site.path)).status_code == 204
    await put_tenant(site.admin, site.tenant, tier="pro")
    # What an app counted before is not its new life's.
    assert await site.report("an-app", 2, age=30) == 0
    decision = await check(site.admin, site.tenant)
    assert (decision["allowed"], decision["remaining"], decision["tier"]) == (True, 4, "pro")
    quotas = (await site.admin.get(f"{site.path}/quotas")).json()["quotas"]
    assert [(one["used"], one["reserved"], one["limit"]) for one in quotas] == [(0, 0, 5)] * 2
    assert (await site.post(f"{site.path}/quotas/consume", {"items": {"users": 5, "slots": 5}}))[
        "allowed"
    ]
    assert (await site.admin.get(f"{site.path}/jobs")).json()["jobs"] == []
    job = await site.post(f"{site.path}/jobs", {"function": "quick"}, key="once")

    async def done() -> bool:
        answer = await site.admin.get(f"{site.path}/jobs/{job['job_id']}")
        return bool(answer.json()["status"] == "succeeded")

    await until(done)
    lines = await exported(site)
    told = Counter(line["kind"] for line in lines)
    assert (told["override"], told["token"], told["job"]) == (0, 0, 1)
    actions = [line["action"] for line in lines if line["kind"] == "audit"]
    assert actions[:2] == ["tenant.erased", "tenant.created"]
    assert set(actions[2:]) == {"quota.crossed"}


async def test_an_export_is_for_hosts_and_admins(
    site: Site, one: Sidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await site.live()
    host = await site.post("/v1/tokens", {"scope": "host", "name": "host"})
    for token, status in ((host["token"], 200), (secret, 403), ("pw_nobody", 401)):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await site.admin.get(f"{site.path}/export", headers=headers)
        assert answer.status_code == status
    assert (await site.admin.get("/v1/tenants/nobody/export")).status_code == 404

    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", one.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", host["token"])
    file = tmp_path / "tenant.ndjson"
    command = ["tenants", "export", site.tenant, "--output", str(file)]
    result = await asyncio.to_thread(CliRunner().invoke, app, command, prog_name="partywall")
    assert result.exit_code == 0, result.stderr
    kinds = [json.loads(line)["kind"] for line in file.read_text().splitlines()]
    assert kinds[1:-1] == [line["kind"] for line in await exported(site)]
