"""kill -9 under load: nothing that was acknowledged is lost, and each change has its audit line."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest
import redis.asyncio

from partywall_service.embedded import ValkeyServer
from tests.acceptance.asking import PATIENT, audit, check, fresh_tenant, until
from tests.conftest import SidecarFactory
from tests.support.processes import eventually, server_processes
from tests.support.sidecar import Sidecar

QUOTAS = """
default_tier = "free"
[tiers.free.limits]
requests = "1000/hour"
[tiers.pro]
extends = "free"
"""


@dataclass
class Acknowledged:
    """What the API said it did.

    Attributes:
        tiers: of each tenant that is, its tier.
        overrides: of each override that is, by tenant, its value.
        tokens: the id of each token that is, and its secret.
        gone: tenants that were deleted.
        revoked: secrets of tokens that were revoked.
        changes: how many acknowledgements.
    """

    tiers: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    revoked: list[str] = field(default_factory=list)
    changes: int = 0


class Writers:
    """Admins who write without end; what was not answered they do not count as done."""

    def __init__(self, one: Sidecar, count: int = 6) -> None:
        self.done = Acknowledged()
        self._one = one
        self._count = count

    async def __aenter__(self) -> "Writers":
        self._over = False
        self._tasks = [asyncio.create_task(self._write()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def changes(self, count: int) -> None:
        """Wait until so many more are done."""
        wanted = self.done.changes + count

        async def reached() -> bool:
            return self.done.changes >= wanted

        await until(reached, seconds=60)

    async def _write(self) -> None:
        while not self._over:
            try:
                async with self._one.client(timeout=10) as client:
                    while not self._over:
                        await self._live(client)
            except httpx.TransportError:
                await asyncio.sleep(0.02)  # it is down: another process, of which nothing tells us

    async def _live(self, client: httpx.AsyncClient) -> None:
        """One tenant's life, each step noted once it is acknowledged."""
        done, tenant = self.done, fresh_tenant()
        path = f"/v1/tenants/{tenant}"
        await self._do(client, "PUT", path, {"tier": "free"})
        done.tiers[tenant] = "free"
        override = {"value": "7/minute", "reason": "launch"}
        await self._do(client, "PUT", f"{path}/overrides/limits/requests", override)
        done.overrides[tenant] = "7/minute"
        made = await self._do(client, "POST", "/v1/tokens", {"scope": "host", "name": tenant})
        done.tokens[made["id"]] = made["token"]
        del done.tiers[tenant]  # while it is under way, either is right
        await self._do(client, "PUT", path, {"tier": "pro"})
        done.tiers[tenant] = "pro"
        if done.changes % 3 == 0:
            del done.tiers[tenant], done.overrides[tenant], done.tokens[made["id"]]
            await self._do(client, "DELETE", path)
            done.gone.add(tenant)
            await self._do(client, "DELETE", f"/v1/tokens/{made['id']}")
            done.revoked.append(made["token"])

    async def _do(
        self, client: httpx.AsyncClient, method: str, path: str, body: object = None
    ) -> dict[str, Any]:
        while True:
            answer = await client.request(method, path, json=body)
            if answer.status_code != 503:  # its database is away, so nothing is acknowledged
                assert answer.is_success, answer.text
                self.done.changes += 1
                return answer.json() if answer.content else {}
            if self._over:
                raise httpx.TransportError("over")
            await asyncio.sleep(0.02)  # as above


async def nothing_is_lost(one: Sidecar, done: Acknowledged) -> None:
    """Hold what there is against what was acknowledged, and the audit log against both."""
    assert done.changes > 0
    async with one.client() as client:
        tenants = {it["tenant"]: it["tier"] async for it in pages(client, "tenants")}
        assert {t: tenants.get(t) for t in done.tiers} == done.tiers
        assert not done.gone & tenants.keys()
        tokens = {it["id"] async for it in pages(client, "tokens")}
        assert done.tokens.keys() <= tokens
        overrides = {}
        for tenant in tenants:
            answer = await client.get(f"/v1/tenants/{tenant}/overrides")
            for override in answer.json()["overrides"]:
                overrides[tenant] = override["value"]
        assert {t: overrides.get(t) for t in done.overrides} == done.overrides

        entries = await audit(client)
        lines = Counter((it["action"], it["tenant"]) for it in entries)
        # A line for all that is, also for what nobody heard the end of, and none for what is not.
        for tenant, tier in tenants.items():
            assert lines["tenant.created", tenant] == 1
            assert (lines["tenant.updated", tenant] > 0) == (tier == "pro")
            assert (lines["override.set", tenant] > 0) == (tenant in overrides)
            assert lines["tenant.erased", tenant] == 0
        # Of what is gone one line, and no other: also of what nobody heard the end of.
        assert all(lines["tenant.erased", tenant] == 1 for tenant in done.gone)
        assert {t for action, t in lines if action == "tenant.created"} == tenants.keys()
        made = {it["detail"]["id"] for it in entries if it["action"] == "token.created"}
        revoked = {it["detail"]["id"] for it in entries if it["action"] == "token.revoked"}
        assert made - revoked == tokens

        secret = next(iter(done.tokens.values()))
        async with one.client(secret) as host:
            assert (await check(host, fresh_tenant()))["allowed"] is True
        for revoked in done.revoked[:20]:
            async with one.client(revoked) as host:
                assert (await host.post("/v1/check", json={"tenant": "a"})).status_code == 401


async def pages(client: httpx.AsyncClient, what: str) -> AsyncIterator[dict[str, Any]]:
    """Everything in one of the API's lists."""
    cursor: str | None = None
    while True:
        params = {"page_size": "1000"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"/v1/{what}", params=params)).json()
        for item in page[what]:
            yield item
        cursor = page["next_cursor"]
        if cursor is None:
            return


def kill_server(one: Sidecar, program: str) -> None:
    """Kill -9 the head of an embedded server's processes."""

    def killed() -> bool:
        found = [it for it in server_processes(one.directory) if it.name() == program]
        if not found:
            return False
        min(found, key=lambda it: it.create_time()).kill()
        return True

    # It may be just coming back from the last time, and its children come and go.
    eventually(killed, psutil.NoSuchProcess, seconds=60)


async def test_a_killed_sidecar_loses_nothing(sidecar: SidecarFactory, soak: bool) -> None:
    one = sidecar(quotas=QUOTAS, embedded=True)
    for _ in range(10 if soak else 1):
        async with Writers(one) as writers:
            await writers.changes(60)
            one.kill()
            await asyncio.to_thread(one.start)
            await writers.changes(20)  # and they go on
        await nothing_is_lost(one, writers.done)


@pytest.mark.parametrize("program", ["valkey-server", "postgres"])
async def test_a_killed_server_loses_nothing(
    sidecar: SidecarFactory, program: str, soak: bool
) -> None:
    one = sidecar(quotas=QUOTAS, embedded=True)
    async with Writers(one) as writers:
        # One that dies again and again is started ever later.
        for _ in range(6 if soak else 1):
            await writers.changes(60)
            kill_server(one, program)
            await writers.changes(60)
    await nothing_is_lost(one, writers.done)
    one.kill()
    await asyncio.to_thread(one.start)
    await nothing_is_lost(one, writers.done)


async def test_everything_killed_at_once_loses_nothing(sidecar: SidecarFactory) -> None:
    one = sidecar(quotas=QUOTAS, embedded=True)
    async with Writers(one) as writers:
        await writers.changes(60)
        servers = server_processes(one.directory)
        one.kill()
        for process in servers:
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with its parent
                process.kill()
        await asyncio.to_thread(one.start)
    await nothing_is_lost(one, writers.done)


async def test_rate_windows_survive_a_kill_of_valkey(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    env = {**PATIENT, "PARTYWALL_REDIS_URL": own_valkey.url}
    one = sidecar(quotas=QUOTAS, env=env)
    tenants = [fresh_tenant() for _ in range(20)]
    admitted = Counter[str]()
    async with one.client() as client:

        async def ask(tenant: str) -> None:
            for _ in range(25):
                decision = await check(client, tenant)
                admitted[tenant] += decision["allowed"] and not decision["degraded"]

        await asyncio.gather(*map(ask, tenants))
        async with redis.asyncio.Redis.from_url(own_valkey.url) as admin:

            async def written() -> bool:
                # While an fsync is slow, Valkey puts off even the write, for up to two seconds.
                info = await admin.info("persistence")
                return info["aof_buffer_length"] == info["aof_pending_bio_fsync"] == 0

            await until(written)
        pid = own_valkey.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        own_valkey.wait()
        await asyncio.to_thread(own_valkey.start)

        async def exact() -> bool:
            return not (await check(client, tenants[0], dry_run=True))["degraded"]

        await until(exact)
        for tenant in tenants:
            left = (await check(client, tenant, dry_run=True, cost=1))["remaining"]
            assert left == 1000 - admitted[tenant] - 1
        assert set(admitted.values()) == {25}
