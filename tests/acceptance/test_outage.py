"""When a store is away: answered in time, said to be degraded, never denied for that, and back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from partywall_service.embedded import PostgresServer, ValkeyServer
from partywall_service.ledger.migrations import upgrade
from tests.acceptance.asking import Load, check, fresh_tenant, new_token, put_tenant, until
from tests.conftest import SidecarFactory
from tests.support.api import problem_of
from tests.support.sidecar import Sidecar

DEADLINE = 1.0
"""Seconds, and long, so that a busy machine is not taken for an outage."""

QUOTAS = """
default_tier = "free"
[tiers.free.limits]
requests = "1000000/minute"
few = "5/hour"
open = { rate = "1/hour", on_outage = "open" }
closed = { rate = "1000000/minute", on_outage = "closed" }
observed = { rate = "1/hour", enforce = false }
"""


@pytest.fixture
def on_valkey(sidecar: SidecarFactory, own_valkey: ValkeyServer) -> Sidecar:
    """A sidecar on a Valkey of its own."""
    env = {
        "PARTYWALL_REDIS_URL": own_valkey.url,
        "PARTYWALL_REDIS_TIMEOUT_MS": str(round(DEADLINE * 1000)),
    }
    return sidecar(quotas=QUOTAS, env=env)


async def says(client: httpx.AsyncClient, status: int, *, ready: bool, degraded: list[str]) -> bool:
    """Whether `/readyz` says so."""
    answer = await client.get("/readyz")
    return (answer.status_code, answer.json()) == (status, {"ready": ready, "degraded": degraded})


def freeze(server: ValkeyServer) -> Callable[[], None]:
    """Stop it as SIGSTOP does, connections open and silent; give back how to end that."""
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def kill(server: ValkeyServer) -> Callable[[], None]:
    """Kill -9; give back how to start it again."""
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.wait()
    return server.start


@pytest.mark.parametrize("take_away", [freeze, kill])
async def test_without_valkey_checks_are_answered_in_time_and_it_comes_back(
    on_valkey: Sidecar,
    own_valkey: ValkeyServer,
    take_away: Callable[[ValkeyServer], Callable[[], None]],
    soak: bool,
) -> None:
    tenants = [fresh_tenant() for _ in range(50)]
    turn = iter(range(10**9))
    async with on_valkey.client() as client:
        for tenant in tenants:
            await check(client, tenant)  # known from here on
        async with Load(on_valkey, lambda: {"tenant": tenants[next(turn) % 50]}, 16) as load:
            await load.answers(200)
            assert not any(decision["degraded"] for decision in load.decisions)

            give_back = take_away(own_valkey)
            load.forget()
            await load.answers(20_000 if soak else 1000)
            outage = list(load.decisions), sorted(load.latencies), dict(load.statuses)
            await until(lambda: says(client, 200, ready=True, degraded=["redis", "jobs"]))

            await asyncio.to_thread(give_back)

            async def exact() -> bool:
                return not (await check(client, tenants[0]))["degraded"]

            _, took = await until(exact)
            load.forget()
            await load.answers(200)
            assert not any(decision["degraded"] for decision in load.decisions)

        decisions, latencies, statuses = outage
        assert statuses.keys() == {200}
        assert load.errors == []
        assert all(decision["allowed"] for decision in decisions)
        late = [decision for decision in decisions if not decision["degraded"]]
        assert len(late) <= load.connections  # answered just before
        assert latencies[int(len(latencies) * 0.99)] < 3 * DEADLINE
        assert took < (2 if soak else 10)
        await until(lambda: says(client, 200, ready=True, degraded=[]))
        # Exact, and not merely answering.
        acme = fresh_tenant()
        answers = await asyncio.gather(*(check(client, acme, limit="few") for _ in range(50)))
        assert sum(decision["allowed"] for decision in answers) == 5
    assert on_valkey.log.count("store.lost") == on_valkey.log.count("store.back") >= 1
    assert "Traceback" not in on_valkey.log


async def test_each_limit_is_answered_as_it_says(
    on_valkey: Sidecar, own_valkey: ValkeyServer
) -> None:
    acme = fresh_tenant()
    async with on_valkey.client() as client:
        await check(client, acme)
        give_back = freeze(own_valkey)

        async def away() -> bool:
            return (await check(client, acme))["degraded"]

        await until(away)

        # local: its own window, at this sidecar's share, with the quota that the tenant has.
        answers = [await check(client, acme, limit="few") for _ in range(8)]
        assert all(it["degraded"] for it in answers)
        assert [it["allowed"] for it in answers] == [True] * 5 + [False] * 3
        assert answers[-1]["reason"] == "limit-exceeded"
        assert 0 < answers[-1]["retry_after"] <= 3600
        assert answers[0]["windows"][0]["quota"] == 5
        looked = await check(client, fresh_tenant(), limit="few", cost=5, dry_run=True)
        assert (looked["allowed"], looked["degraded"]) == (True, True)
        # What never fits is denied for that, outage or not.
        never = await check(client, acme, limit="few", cost=6)
        assert (never["allowed"], never["retry_after"]) == (False, None)

        answers = [await check(client, acme, limit="open") for _ in range(3)]
        assert all(it["allowed"] and it["degraded"] for it in answers)

        answer = await client.post("/v1/check", json={"tenant": acme, "limit": "closed"})
        problem_of(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        headers = {"X-Tenant-ID": acme, "X-Limit": "closed"}
        answer = await client.get("/v1/authz?deny=403", headers=headers)
        problem_of(answer, 503, "unavailable")  # an outage is no denial, whatever a denial is

        answers = [await check(client, acme, limit="observed") for _ in range(3)]
        assert all(it["allowed"] and it["degraded"] for it in answers)

        metrics = (await client.get("/metrics")).text
        assert 'partywall_degraded_decisions_total{limit="open",outcome="admitted"' in metrics
        assert "partywall_store_up 0.0" in metrics
        give_back()

        async def back() -> bool:
            return not (await check(client, acme))["degraded"]

        await until(back)
        # The shared window knows nothing of what was decided without it.
        assert (await check(client, acme, limit="few", dry_run=True))["remaining"] == 4
        assert "partywall_store_up 1.0" in (await client.get("/metrics")).text


async def test_when_every_limit_is_closed_it_is_not_ready(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    closed = """
    default_tier = "free"
    [tiers.free.limits]
    requests = { rate = "5/hour", on_outage = "closed" }
    """
    one = sidecar(quotas=closed, env={"PARTYWALL_REDIS_URL": own_valkey.url})
    async with one.client() as client:
        give_back = kill(own_valkey)
        await until(lambda: says(client, 503, ready=False, degraded=["redis", "jobs"]))
        answer = await client.post("/v1/check", json={"tenant": "acme"})
        problem_of(answer, 503, "unavailable")
        await asyncio.to_thread(give_back)
        await until(lambda: says(client, 200, ready=True, degraded=[]))
        assert (await check(client, "acme"))["degraded"] is False


async def test_it_starts_without_valkey(sidecar: SidecarFactory, own_valkey: ValkeyServer) -> None:
    own_valkey.stop()
    one = sidecar(quotas=QUOTAS, env={"PARTYWALL_REDIS_URL": own_valkey.url})
    async with one.client() as client:
        assert (await check(client, "acme"))["degraded"] is True
        await until(lambda: says(client, 200, ready=True, degraded=["redis", "jobs"]))
        await asyncio.to_thread(own_valkey.start)

        async def exact() -> bool:
            return not (await check(client, "acme"))["degraded"]

        await until(exact)


@asynccontextmanager
async def stopped(server: PostgresServer) -> AsyncIterator[None]:
    """Shut down, as for maintenance; up again after the block."""
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def frozen(server: PostgresServer) -> AsyncIterator[None]:
    """Silent, every process of it: connections stay open and nothing answers."""
    pid = server.pid
    assert pid is not None
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@pytest.mark.parametrize("away", [stopped, frozen])
async def test_without_postgres_known_tenants_go_on(
    sidecar: SidecarFactory, own_postgres: PostgresServer, away: Callable[..., AsyncIterator[None]]
) -> None:
    await asyncio.to_thread(upgrade, own_postgres.url)
    env = {"PARTYWALL_DATABASE_URL": own_postgres.url, "PARTYWALL_REDIS_TIMEOUT_MS": "30000"}
    one = sidecar(quotas=QUOTAS, env=env)
    known, suspended = fresh_tenant(), fresh_tenant()
    async with one.client() as admin:
        await put_tenant(admin, known)
        await put_tenant(admin, suspended, status="suspended")
        assert (await check(admin, suspended))["reason"] == "tenant-suspended"
        host = (await new_token(admin, "host"))["token"]
        async with one.client(host) as client:
            await check(client, known)
            async with away(own_postgres), Load(one, lambda: {"tenant": known}, 4) as load:
                loop = asyncio.get_running_loop()
                for _ in range(3):
                    begin = loop.time()
                    answer = await client.post("/v1/check", json={"tenant": fresh_tenant()})
                    problem_of(answer, 503, "unavailable")
                    assert int(answer.headers["retry-after"]) >= 1
                    assert loop.time() - begin < 10
                answer = await client.get("/v1/authz", headers={"X-Tenant-ID": fresh_tenant()})
                problem_of(answer, 503, "unavailable")
                assert (await check(client, known))["allowed"] is True
                assert (await check(client, suspended))["reason"] == "tenant-suspended"
                await until(lambda: says(client, 200, ready=True, degraded=["database"]))
                asked = (
                    admin.get("/v1/tenants"),
                    admin.get("/v1/audit"),
                    admin.get(f"/v1/tenants/{known}"),
                    admin.put(f"/v1/tenants/{known}", json={"tier": "free"}),
                    admin.delete(f"/v1/tenants/{known}/overrides/limits/requests"),
                    admin.post("/v1/tokens", json={"scope": "host", "name": "x"}),
                )
                for answer in await asyncio.gather(*asked):
                    problem_of(answer, 503, "unavailable")
                    assert int(answer.headers["retry-after"]) >= 1
                answer = await admin.post(
                    "/v1/check",
                    json={"tenant": known},
                    headers={"Authorization": "Bearer pw_00000000_0000"},
                )
                assert answer.status_code in (401, 503)  # whose it is, only PostgreSQL knows
                await load.answers(200)
            assert load.statuses.keys() == {200}
            assert not any(it["degraded"] or not it["allowed"] for it in load.decisions)
            assert load.errors == []
            await until(lambda: says(client, 200, ready=True, degraded=[]))
            # It leaves PostgreSQL alone for a moment after a failure.
            stranger = fresh_tenant()
            await until(lambda: check(client, stranger), AssertionError)
            await put_tenant(admin, known, status="suspended")
            assert (await check(client, known))["reason"] == "tenant-suspended"
    assert "Traceback" not in one.log
