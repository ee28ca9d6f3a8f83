"""Where a tenant's cap comes from: a number, a function, or the tier's quota."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from partywall.cache import TenantCache
from partywall.cache.limits import QUOTA_SECONDS, AskedLimit, QuotaLimit
from partywall.errors import ConfigurationError, SidecarUnavailable, UnknownResource, UnknownTenant


class Sidecar:
    """Answers what it is told to, and counts."""

    def __init__(self, limit: int | None = 5) -> None:
        self.limit = limit
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.now = 0.0

    async def quotas(self, tenant: str) -> list[Any]:
        self.asked.append(tenant)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        users = SimpleNamespace(resource="users", limit=1)
        return [users, SimpleNamespace(resource="cache_keys", limit=self.limit)]

    def limits(self, resource: str = "cache_keys") -> QuotaLimit:
        return QuotaLimit(self, resource, lambda: self.now)


async def test_a_quota_is_asked_for_once_in_a_while_by_everybody_together():
    sidecar = Sidecar()
    limit = sidecar.limits()
    assert await asyncio.gather(*(limit("acme") for _ in range(10))) == [5] * 10
    assert await limit("acme") == 5
    assert sidecar.asked == ["acme"]
    assert await limit("beta") == 5
    assert sidecar.asked == ["acme", "beta"]


async def test_a_changed_quota_is_felt_within_a_second():
    sidecar = Sidecar()
    limit = sidecar.limits()
    assert await limit("acme") == 5
    sidecar.limit, sidecar.now = None, QUOTA_SECONDS
    assert QUOTA_SECONDS <= 1
    assert await limit("acme") is None


async def test_in_an_outage_the_last_answer_goes_on_and_there_is_none_for_a_stranger():
    sidecar = Sidecar()
    limit = sidecar.limits()
    assert await limit("acme") == 5
    sidecar.error, sidecar.now = SidecarUnavailable("down"), 100
    assert [await limit("acme") for _ in range(3)] == [5, 5, 5]
    assert sidecar.asked == ["acme", "acme"]
    with pytest.raises(SidecarUnavailable):
        await limit("beta")


async def test_other_errors_are_told():
    sidecar = Sidecar()
    limit = sidecar.limits()
    assert await limit("acme") == 5
    sidecar.error, sidecar.now = UnknownTenant("no such tenant"), 100
    with pytest.raises(UnknownTenant):
        await limit("acme")


async def test_a_resource_that_no_tier_names_is_a_mistake():
    with pytest.raises(UnknownResource, match="expected a quota of 'cache_key'"):
        await Sidecar().limits("cache_key")("acme")


async def test_a_function_may_wait_or_not():
    async def waits(tenant: str) -> int | None:
        return {"acme": 7}.get(tenant)

    assert await AskedLimit(waits)("acme") == 7
    assert await AskedLimit(waits)("beta") is None
    assert await AskedLimit(len)("acme") == 4


@pytest.mark.parametrize("answer", [-1, 1.5, True, "3"])
async def test_a_function_that_gives_no_number_is_told_so(answer):
    with pytest.raises(ConfigurationError, match="expected a number of keys"):
        await AskedLimit(lambda _tenant: answer)("acme")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "expected limit= or client="),
        ({"limit": 3, "client": Sidecar()}, "expected limit= or client="),
        ({"limit": -1}, "expected a number of keys"),
        ({"limit": 3, "policy": "drop"}, "expected policy to be 'evict' or 'refuse'; got 'drop'"),
        ({"limit": 3, "ttl": 0}, "expected a ttl"),
        ({"limit": 3, "prefix": "a{b"}, "expected a prefix without braces"),
        ({"limit": 3, "dumps": str}, "expected both dumps and loads"),
    ],
)
def test_what_no_cache_can_be_made_of_is_refused(options, expected):
    with pytest.raises(ConfigurationError, match=expected):
        TenantCache(cast("Redis", None), **options)


def test_without_redis_py_it_says_what_to_install():
    code = "import sys; sys.modules['redis'] = None\nimport partywall.cache"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "partywall.cache needs redis-py: pip install 'partywall[cache]'" in done.stderr
