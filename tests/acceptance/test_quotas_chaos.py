"""kill -9 of sidecars, Valkey (its data wiped) and PostgreSQL under a load of quota operations.

Afterwards the level answered, the level in PostgreSQL, the sum of the ledger and the sum of what
was acknowledged are one number, for every tenant and resource.
"""

import asyncio
import os
import random
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psycopg
import pytest
import redis.asyncio

from partywall_service.embedded import PostgresServer, ValkeyServer
from partywall_service.ledger.migrations import upgrade
from tests.acceptance.asking import PATIENT, until
from tests.conftest import SOAK, SidecarFactory
from tests.support.sidecar import Sidecar

POLICY = """
default_tier = "free"
[tiers.free.limits]
requests = "1000000/hour"
[tiers.free.quotas]
users = 40
projects = 15
storage = "unlimited"
"""
LIMITS = {"users": 40, "projects": 15, "storage": None}
TENANTS = [f"tenant-{number}" for number in range(8)]
WORKERS = 24
OPERATIONS = 20_000 if SOAK else 400
KILLS = 40 if SOAK else 4
GIVE_UP = 120.0


class Load:
    """Clients that change quotas and repeat what was not answered, under the same key.

    Attributes:
        done: operations that got a definite answer.
        levels: by tenant and resource, what the acknowledged ones sum to.
        over: answers in which more was used and reserved than the limit is.
        unsettled: reservations that nobody will settle.
    """

    def __init__(self, sidecars: list[Sidecar], seed: int) -> None:
        self.done = 0
        self.levels: Counter[tuple[str, str]] = Counter()
        self.over: list[dict[str, Any]] = []
        self.unsettled = 0
        self._sidecars = sidecars
        self._random = random.Random(seed)

    async def run(self) -> None:
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._sidecars[0].admin_token}"}, timeout=10
        ) as client:
            await asyncio.gather(*(self._work(client) for _ in range(WORKERS)))

    async def _work(self, client: httpx.AsyncClient) -> None:
        while self.done < OPERATIONS:
            tenant = self._random.choice(TENANTS)
            names = self._random.sample(list(LIMITS), self._random.choice([1, 1, 2]))
            items = {name: self._random.randint(1, 6) for name in names}
            match self._random.choice(["consume", "consume", "release", "reserve"]):
                case "reserve":
                    await self._reserve(client, tenant, items)
                case change:
                    answer = await self._ask(client, tenant, change, {"items": items})
                    if answer.status_code == 200 and answer.json()["allowed"]:
                        self._sum(tenant, items, 1 if change == "consume" else -1)

    async def _reserve(self, client: httpx.AsyncClient, tenant: str, items: dict[str, int]) -> None:
        end = self._random.choice(["commit", "commit", "cancel", "leave"])
        ttl = 1 if end == "leave" else 60
        answer = await self._ask(client, tenant, "reserve", {"items": items, "ttl": ttl})
        if answer.status_code != 200 or not answer.json()["allowed"]:
            return
        if end == "leave":
            self.unsettled += 1
            return
        path = f"reservations/{answer.json()['reservation']}/{end}"
        settled = await self._ask(client, tenant, path, {})
        # An outage may have lasted longer than the reservation did.
        assert settled.status_code in (200, 409), settled.text
        if settled.status_code == 200 and end == "commit":
            self._sum(tenant, items, 1)

    async def _ask(
        self, client: httpx.AsyncClient, tenant: str, path: str, body: dict[str, Any]
    ) -> httpx.Response:
        """The definite answer, however often it takes to ask, and of whichever sidecar."""
        key = uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        end = loop.time() + GIVE_UP
        while True:
            one = self._random.choice(self._sidecars)
            try:
                answer = await client.post(
                    f"{one.url}/v1/tenants/{tenant}/quotas/{path}",
                    json=body,
                    headers={"Idempotency-Key": key},
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code < 500:
                assert answer.status_code in (200, 409), answer.text
                self.done += 1
                self._look(answer)
                return answer
            assert loop.time() < end, f"no definite answer in {GIVE_UP} s: {answer}"
            await asyncio.sleep(0.05)  # other processes: nothing tells us when they are back

    def _look(self, answer: httpx.Response) -> None:
        if answer.status_code == 200 and answer.json().get("allowed"):
            self.over += [
                quota
                for quota in answer.json()["quotas"]
                if quota["limit"] is not None and quota["used"] + quota["reserved"] > quota["limit"]
            ]

    def _sum(self, tenant: str, items: dict[str, int], sign: int) -> None:
        for name, amount in items.items():
            self.levels[tenant, name] += sign * amount


async def kill_at_random(
    load: Load, victims: dict[str, Callable[[], Awaitable[None]]], seed: int
) -> Counter[str]:
    """Kills each kind at least once, spread over the load."""
    names = list(victims) * (KILLS // len(victims))
    random.Random(seed).shuffle(names)
    for number, name in enumerate(names, start=1):
        share = OPERATIONS * number // (len(names) + 1)

        async def reached(share: int = share) -> bool:
            return load.done >= share

        await until(reached, seconds=GIVE_UP)
        await victims[name]()
    return Counter(names)


async def restarted(one: Sidecar) -> None:
    one.process.kill()
    await asyncio.to_thread(one.process.wait)
    await asyncio.to_thread(one.start)


async def killed(server: PostgresServer | ValkeyServer, *, wiped: bool = False) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.wait)
    if wiped:
        shutil.rmtree(server.home)
    await asyncio.to_thread(server.start)


def in_postgres(url: str) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]], int]:
    """The levels, the sums of the ledger, and what is reserved."""
    with psycopg.connect(url) as connection:
        levels = connection.execute("SELECT tenant, resource, used, reserved FROM quota_levels")
        rows = levels.fetchall()
        sums = connection.execute(
            "SELECT tenant, resource, sum(delta)::bigint FROM quota_ledger GROUP BY 1, 2"
        ).fetchall()
    return (
        Counter({(tenant, name): used for tenant, name, used, _ in rows}),
        Counter({(tenant, name): total for tenant, name, total in sums}),
        sum(reserved for *_, reserved in rows),
    )


async def answered(one: Sidecar) -> tuple[Counter[tuple[str, str]], int]:
    """The levels as the API tells them, and what is reserved."""
    levels: Counter[tuple[str, str]] = Counter()
    reserved = 0
    async with one.client() as client:
        for tenant in TENANTS:
            answer = await client.get(f"/v1/tenants/{tenant}/quotas")
            assert answer.status_code == 200, answer.text
            for quota in answer.json()["quotas"]:
                levels[tenant, quota["resource"]] = quota["used"]
                reserved += quota["reserved"]
    return levels, reserved


@pytest.mark.timeout(3600 if SOAK else 180)
async def test_nothing_is_lost_counted_twice_or_left_reserved(
    sidecar: SidecarFactory, own_postgres: PostgresServer, own_valkey: ValkeyServer
) -> None:
    stores = {
        "PARTYWALL_REDIS_URL": own_valkey.url,
        "PARTYWALL_DATABASE_URL": own_postgres.url,
        "PARTYWALL_REDIS_TIMEOUT_MS": "1000",
    }
    upgrade(own_postgres.url)
    one, other = (sidecar(quotas=POLICY, env=stores) for _ in range(2))
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown on failure
    load = Load([one, other], seed)
    victims = {
        "one": lambda: restarted(one),
        "other": lambda: restarted(other),
        "valkey": lambda: killed(own_valkey, wiped=True),
        "postgres": lambda: killed(own_postgres),
    }
    _, kills = await asyncio.gather(load.run(), kill_at_random(load, victims, seed))
    assert set(kills) == set(victims)
    assert load.done >= OPERATIONS
    assert load.over == []
    assert load.unsettled > 0

    async def nothing_is_reserved() -> bool:
        return (await answered(one))[1] == 0

    # Those that outlived an outage and were then refused end by themselves as well.
    await until(nothing_is_reserved, seconds=90)
    acknowledged = +load.levels
    for side in (one, other):
        assert +(await answered(side))[0] == acknowledged
    levels, sums, reserved = in_postgres(own_postgres.url)
    assert +levels == acknowledged
    assert +sums == acknowledged
    assert reserved == 0


async def test_redis_emptied_again_and_again_answers_no_quota_from_zero(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    one = sidecar(quotas=POLICY, env={"PARTYWALL_REDIS_URL": own_valkey.url, **PATIENT})
    taken: list[int] = []
    over = asyncio.Event()

    async def take(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            answer = await client.post(
                "/v1/tenants/acme/quotas/consume", json={"items": {"users": 1}}
            )
            assert answer.status_code == 200, answer.text
            if answer.json()["allowed"]:
                taken.append(answer.json()["quotas"][0]["used"])
            else:
                assert answer.json()["quotas"][0]["used"] == 40

    async def empty() -> None:
        async with redis.asyncio.Redis.from_url(own_valkey.url) as valkey:
            for _ in range(200):
                await valkey.flushall()
                await asyncio.sleep(0.01)  # a moment of load between two of them
        over.set()

    async with one.client() as client:
        await asyncio.gather(empty(), *(take(client) for _ in range(8)))
    assert sorted(taken) == list(range(1, 41))
