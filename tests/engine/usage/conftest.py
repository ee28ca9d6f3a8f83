"""Counts on each server, by a clock that stands still until it is moved."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis, RedisCluster

from partywall_service.usage.adding import Adder
from partywall_service.usage.limits_source import LimitsSource
from tests.conftest import SOAK
from tests.engine.clients import SERVERS, connected
from tests.engine.usage.reporting import PATIENT, Clock


@pytest.fixture(params=[*SERVERS, *(["cluster"] if SOAK else [])])
async def client(
    request: pytest.FixtureRequest, key_prefix: str
) -> AsyncIterator[Redis | RedisCluster]:
    async with connected(request.param, request, key_prefix) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def adder(client: Redis | RedisCluster, key_prefix: str, clock: Clock) -> Adder:
    return Adder(client, prefix=key_prefix, deadline=PATIENT, now=clock)


@pytest.fixture
def source(client: Redis | RedisCluster, key_prefix: str, clock: Clock) -> LimitsSource:
    return LimitsSource(client, key_prefix, PATIENT, now=clock)
