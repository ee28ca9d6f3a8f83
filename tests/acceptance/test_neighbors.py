"""A noisy tenant beside a quiet one, on a real sidecar, from the first check to the webhook."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from partywall_service.maintenance.worker import maintenance_worker
from partywall_service.settings import Settings
from partywall_workers.keys import queue_name
from partywall_workers.policy import SYSTEM_POLICY, SYSTEM_TENANT
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.acceptance.asking import fresh_tenant
from tests.servers.usage.receiver import SECRET, Receiver, receiving
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar

POLICY = """
default_tier = "free"
[tiers.free.limits]
requests = "10/minute"
open = "unlimited"
[tiers.pro]
weight = 4
"""


@pytest.fixture(scope="module")
def served(test_run: TestRun) -> Iterator[Sidecar]:
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest.fixture
async def admin(served: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    async with served.client() as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


async def check(admin: httpx.AsyncClient, tenant: str, times: int, limit: str = "requests") -> None:
    """So many checks at once."""
    body = [{"tenant": tenant, "limit": limit}] * times
    answer = await admin.post("/v1/checks", json=body)
    assert answer.status_code == 200, answer.text


async def neighbors(admin: httpx.AsyncClient, **query: str) -> dict[str, dict[str, object]]:
    answer = await admin.get("/v1/reports/neighbors", params={"top": "1000", **query})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["next_cursor"] is None
    shares = [one["share"] for one in document["tenants"]]
    assert shares == sorted(shares, reverse=True)
    return {one["tenant"]: one for one in document["tenants"]}


async def test_the_minute_that_runs_is_seen_at_once(admin: httpx.AsyncClient) -> None:
    loud, quiet = fresh_tenant(), fresh_tenant()
    await admin.put(f"/v1/tenants/{quiet}", json={"tier": "pro"})
    await check(admin, quiet, 5, "open")
    assert (await neighbors(admin))[quiet]["requests"] == 5
    await check(admin, quiet, 5, "open")
    await check(admin, loud, 200)
    found = await neighbors(admin, window="15m")
    assert found[quiet]["requests"] == 10
    assert found[quiet]["verdict"] == "normal"
    assert found[quiet]["tier"] == "pro"
    assert found[loud]["requests"] == 200
    assert found[loud]["denied"] == 190
    assert found[loud]["verdict"] == "noisy"
    assert str(found[loud]["reason"]).endswith(".")
    assert found[quiet]["fair_share"] == pytest.approx(4 * float(str(found[loud]["fair_share"])))
    only = await admin.get("/v1/reports/neighbors", params={"top": 1})
    assert len(only.json()["tenants"]) == 1


@pytest.mark.parametrize(
    "query", [{"window": "0m"}, {"window": "25h"}, {"window": "1d"}, {"top": "0"}, {"top": "1001"}]
)
async def test_nonsense_is_refused(admin: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await admin.get("/v1/reports/neighbors", params=query)
    assert answer.status_code == 422
    ((error),) = answer.json()["errors"]
    assert error["field"].endswith(next(iter(query)))


async def test_a_host_sees_neighbours_and_an_admin_notices(
    served: Sidecar, admin: httpx.AsyncClient
) -> None:
    for scope, statuses in (("host", (200, 403)), ("tenant:acme", (403, 403))):
        token = (await admin.post("/v1/tokens", json={"scope": scope, "name": "x"})).json()["token"]
        async with served.client(token) as caller:
            for path, status in zip(("reports/neighbors", "notices"), statuses, strict=True):
                assert (await caller.get(f"/v1/{path}")).status_code == status


async def test_a_webhook_is_told_of_who_becomes_noisy(
    served: Sidecar, admin: httpx.AsyncClient, receiver: Receiver
) -> None:
    loud = fresh_tenant()
    await check(admin, loud, 300)
    settings = Settings(
        config=served.quotas,
        key_prefix=served.env["PARTYWALL_KEY_PREFIX"],
        webhook_urls=(f"{receiver.url}/hook",),
        webhook_secret=SECRET,
    )
    url, name = served.env["PARTYWALL_REDIS_URL"], queue_name(settings.key_prefix)
    redis = FairRedis.from_url(url, queue_name=name)
    await FairQueue(redis).set_policy(SYSTEM_TENANT, SYSTEM_POLICY)
    for _ in range(2):
        await redis.enqueue_job("judge_neighbours", _tenant=SYSTEM_TENANT)
        worker = maintenance_worker(
            settings,
            served.env["PARTYWALL_DATABASE_URL"],
            url,
            redis_url=url,
            queue_name=name,
            burst=True,
            handle_signals=False,
        )
        try:
            await worker.async_run()
        finally:
            await worker.close()
    await redis.aclose(close_connection_pool=True)
    bodies = [got.verified() for got in receiver.got]
    (told,) = [body for body in bodies if body["tenant"] == loud]
    assert told["type"] == "tenant.noisy"
    page = (await admin.get("/v1/notices", params={"page_size": 1})).json()
    notices = page["notices"]
    while page["next_cursor"] is not None:
        page = (await admin.get("/v1/notices", params={"cursor": page["next_cursor"]})).json()
        notices += page["notices"]
    assert {one["id"] for one in notices} == {body["id"] for body in bodies}
    (kept,) = [one for one in notices if one["tenant"] == loud]
    assert (kept["status"], kept["attempts"], kept["error"]) == ("delivered", 1, None)
    assert kept["data"] == told["data"]
    metrics = (await admin.get("/metrics")).text
    assert 'partywall_notices{kind="tenant.noisy",status="delivered"}' in metrics
