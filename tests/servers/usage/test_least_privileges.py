"""The ACL user of docs/operating.md may do all that usage, exports and erasure ask of Redis."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.embedded import ValkeyServer
from partywall_service.engine.connect import connect, disconnect
from partywall_service.engine.keys import of_tenant
from partywall_service.tenants.redis_keys import TenantKeys
from partywall_service.usage.adding import Adder
from partywall_service.usage.limits_source import CALL, LimitsSource
from tests.support.pages import ROOT

(ACL,) = re.findall(r"^ACL SETUSER .*$", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
PREFIX = "pw"
DEADLINE = 30.0
MINUTE = 60_000_000


@pytest.fixture
async def client(own_valkey: ValkeyServer) -> AsyncIterator[Any]:
    """That user's client."""
    with redis.Redis.from_url(own_valkey.url) as admin:
        admin.execute_command(*ACL.replace(">SECRET", ">secret").split())
    client = connect(f"unix://partywall:secret@{own_valkey.url.removeprefix('unix://')}")
    yield client
    await disconnect(client)


def test_they_are_all_that_the_sidecars_scripts_call() -> None:
    called = {
        command.lower()
        for file in (ROOT / "service").rglob("*.lua")
        for command in re.findall(r"call\('(\w+)'", file.read_text())
    }
    assert len(called) > 20
    assert called - set(re.findall(r"\+(\w+)", ACL)) == set()


async def test_with_them_usage_is_counted_rolled_up_told_and_erased(client: Any) -> None:
    now = 10_000_000 * MINUTE
    adder = Adder(client, prefix=PREFIX, deadline=DEADLINE, now=lambda: now)
    for minute in range(3):
        meters = {f"limits.l{n}.admitted": 1 for n in range(CALL // 2)}
        usage = [TenantUsage("acme", meters), TenantUsage("globex", {"requests.2xx": 1})]
        assert await adder.add(UsageReport("an-sdk-process", minute + 1, 0.0, usage)) == 2
        now += MINUTE
    source = LimitsSource(client, PREFIX, DEADLINE, now=lambda: now)
    points = [point async for batch in source.closed() for point in batch]
    assert len(points) == 3 * (CALL // 2 + 1)  # so many of one tenant are scanned
    assert sorted(await source.held()) == sorted(points)
    await source.forget([point for point in points if point.tenant == "globex"])
    assert {point.tenant for point in await source.held()} == {"acme"}
    keys = TenantKeys(client, prefix=PREFIX)
    await client.set(f"{of_tenant(PREFIX, 'acme')}:another", 1)
    told = [row["key"] async for rows in keys.told("acme") for row in rows]
    assert told == ["another"]
    assert await keys.erase("acme") >= 2
    assert await source.held() == []
