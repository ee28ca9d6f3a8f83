"""The production engine on real servers: lost scripts, broken connections, outages, clusters."""

import asyncio
import os
import signal
import ssl
import subprocess
import time
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from partywall_service.embedded import ValkeyServer
from partywall_service.embedded.valkey import _binary
from partywall_service.engine import keys
from partywall_service.engine.base import (
    AHEAD,
    LEASE_KEPT,
    SLOTS,
    SUB_BUCKETS,
    Ask,
    Check,
    Return,
    StoreError,
)
from partywall_service.engine.breaker import CircuitBreaker
from partywall_service.engine.connect import RedisUrlError, connect, disconnect, warn_if_forgetful
from partywall_service.engine.presence import SILENCE, Presence
from partywall_service.engine.redis import RedisEngine
from partywall_service.policy.model import Rate
from tests.support.cluster import free_ports

PATIENT = 30.0
"""A deadline that a busy machine does not miss."""


def check(tenant: str = "acme", quota: int = 5, cost: int = 1) -> Check:
    return Check(tenant, "requests", (Rate(quota, 60),), cost)


@asynccontextmanager
async def engine_on(url: str, prefix: str = "pw", deadline: float = PATIENT):
    client = connect(url)
    try:
        yield RedisEngine(client, prefix=prefix, deadline=deadline)
    finally:
        await disconnect(client)


async def test_a_server_that_forgot_its_scripts_is_sent_them_again(
    valkey_url, key_prefix, redis_client
):
    async with engine_on(valkey_url, key_prefix) as engine:
        await engine.decide([check()])
        await redis_client.script_flush()
        [verdict] = await engine.decide([check()])
    assert verdict.windows[0].remaining == 3


async def test_a_broken_connection_costs_no_check(own_valkey):
    async with engine_on(own_valkey.url) as engine, Redis.from_url(own_valkey.url) as admin:
        await engine.decide([check(quota=100)])
        for _ in range(10):
            await admin.client_kill_filter(_type="normal", skipme=True)
            assert (await engine.decide([check(quota=100)]))[0].allowed


async def test_concurrent_engines_admit_exactly_the_quota(valkey_url, key_prefix):
    async with engine_on(valkey_url, key_prefix) as one, engine_on(valkey_url, key_prefix) as two:
        answers = await asyncio.gather(
            *(engine.decide([check(quota=5)]) for engine in (one, two) for _ in range(100))
        )
    assert sum(verdict.allowed for [verdict] in answers) == 5


async def test_a_window_lives_while_it_counts_and_hardly_longer(
    valkey_url, key_prefix, redis_client
):
    async with engine_on(valkey_url, key_prefix) as engine:
        await engine.decide([check()])
    life = await redis_client.pttl(keys.window(key_prefix, "acme", "requests", 60))
    assert 60_000 < life <= 60_000 * (33 + 16 + 2) / 32


async def test_a_window_outlives_every_lease_charged_to_it(valkey_url, key_prefix, redis_client):
    """Through two stretches of its sub-buckets: its life is set anew only where one begins."""
    second = (Rate(10**6, 1),)
    name = keys.window(key_prefix, "acme", "requests", 1)
    begun = time.monotonic()
    async with engine_on(valkey_url, key_prefix) as engine:
        for number in count():
            if time.monotonic() - begun > 1.1:
                break
            await engine.decide([Ask("acme", "requests", second, 1, 1, 8, f"lease-{number}")])
            fields = await redis_client.hgetall(name)
            newest = int(float(fields[b"n"]))
            kept = range(newest - SUB_BUCKETS, newest + AHEAD + 1)
            last = max(at for at in kept if int(fields.get(b"%d" % (at % SLOTS), 0)) > 0)
            leaves_at = (last + SUB_BUCKETS + 1) * 1000 / SUB_BUCKETS
            assert await redis_client.pexpiretime(name) >= leaves_at


async def test_a_lease_is_forgotten_by_itself(valkey_url, key_prefix, redis_client):
    async with engine_on(valkey_url, key_prefix) as engine:
        ask = Ask("acme", "requests", (Rate(100, 60),), 1, 1, 8, "one")
        assert (await engine.decide([ask]))[0].granted == 9
    life = await redis_client.pttl(keys.lease(key_prefix, "acme", "requests", "one"))
    assert 0 < life <= LEASE_KEPT


async def test_concurrent_engines_lease_exactly_the_quota_and_return_each_lease_once(
    valkey_url, key_prefix
):
    rates = (Rate(100, 60),)
    leases = [f"lease-{number}" for number in range(150)]
    async with engine_on(valkey_url, key_prefix) as one, engine_on(valkey_url, key_prefix) as two:
        asked = [Ask("acme", "requests", rates, 1, 2, 20, lease) for lease in leases]
        granted = await asyncio.gather(
            *((one, two)[place % 2].decide([ask]) for place, ask in enumerate(asked))
        )
        assert sum(verdict.granted for [verdict] in granted) == 100
        back = [Return("acme", "requests", rates, lease, 1) for lease in leases]
        returned = await asyncio.gather(
            *(engine.decide([one_back]) for one_back in back for engine in (one, two))
        )
        ahead = sum(verdict.granted > 2 for [verdict] in granted)
        assert ahead > 0
        assert sum(verdict.granted for [verdict] in returned) == ahead
        [verdict] = await one.decide([Check("acme", "requests", rates, 101)])
        assert verdict.windows[0].remaining == ahead


async def test_windows_survive_a_kill_of_the_server(own_valkey):
    async with engine_on(own_valkey.url) as engine:
        assert (await engine.decide([check(cost=4)]))[0].allowed
        os.kill(own_valkey.pid, signal.SIGKILL)
        own_valkey.wait()
        own_valkey.start()
        assert (await engine.decide([check(cost=1)]))[0].allowed
        assert not (await engine.decide([check(cost=1)]))[0].allowed


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_an_outage_is_a_store_error_and_ends_by_itself(own_valkey, how):
    client = connect(own_valkey.url)
    engine = RedisEngine(client, deadline=0.5)
    presence = Presence(client, "one", prefix="pw", deadline=0.5)
    back = asyncio.Event()
    breaker = CircuitBreaker(engine, presence.beat, lambda up: back.set() if up else None)
    watch = asyncio.create_task(breaker.watch())
    await breaker.decide([check()])
    os.kill(own_valkey.pid, how)
    with pytest.raises(StoreError):
        await breaker.decide([check()])
    assert not breaker.closed
    if how == signal.SIGSTOP:
        os.kill(own_valkey.pid, signal.SIGCONT)
    else:
        own_valkey.wait()
        own_valkey.start()
    async with asyncio.timeout(PATIENT):
        await back.wait()
    assert (await breaker.decide([check()]))[0].allowed
    watch.cancel()
    await disconnect(client)


async def test_sidecars_count_each_other_until_one_is_silent(valkey_url, key_prefix, redis_client):
    client = connect(valkey_url)
    one = Presence(client, "one", prefix=key_prefix, deadline=PATIENT)
    two = Presence(client, "two", prefix=key_prefix, deadline=PATIENT)
    for presence in (one, two, one):
        await presence.beat()
    assert (one.instances, two.instances) == (2, 2)
    seconds, _ = await redis_client.time()
    await redis_client.zadd(keys.instances(key_prefix), {"two": seconds - SILENCE - 1})
    await one.beat()
    assert one.instances == 1
    await client.aclose()


async def test_a_cluster_decides_a_batch_across_its_nodes(valkey_cluster, key_prefix):
    tenants = [f"tenant-{number}" for number in range(60)]
    async with engine_on(valkey_cluster.url, key_prefix) as engine:
        verdicts = await engine.decide([check(t, quota=2) for t in tenants for _ in range(3)])
        assert [verdict.allowed for verdict in verdicts] == [True, True, False] * len(tenants)
        client = engine._client
        assert isinstance(client, RedisCluster)
        nodes = {
            client.get_node_from_key(keys.window(key_prefix, tenant, "requests", 60)).port
            for tenant in tenants
        }
        assert len(nodes) == 3
        for tenant in tenants:
            await client.delete(keys.window(key_prefix, tenant, "requests", 60))


async def test_a_cluster_leases_and_takes_back_across_its_nodes(valkey_cluster, key_prefix):
    tenants = [f"tenant-{number}" for number in range(30)]
    rates = (Rate(100, 60), Rate(1000, 3600))
    async with engine_on(valkey_cluster.url, key_prefix) as engine:
        asked = [Ask(tenant, "requests", rates, 1, 1, 8, "one") for tenant in tenants]
        back = [Return(tenant, "requests", rates, "one", 8) for tenant in tenants]
        verdicts = await engine.decide([*asked, *back, *back])
        assert [verdict.granted for verdict in verdicts] == [9] * 30 + [8] * 30 + [0] * 30
        assert {verdict.windows[1].remaining for verdict in verdicts[30:]} == {999}
        for tenant in tenants:
            for rate in rates:
                name = keys.window(key_prefix, tenant, "requests", rate.window)
                assert await engine._client.delete(name) == 1


async def test_an_acl_user_may_be_named_in_the_url(own_valkey):
    async with Redis.from_url(own_valkey.url) as admin:
        await admin.acl_setuser(
            "pw", enabled=True, passwords=["+s3cret"], keys=["pw:*"], categories=["+@all"]
        )
    path = quote(str(own_valkey.socket))
    async with engine_on(f"unix://pw:s3cret@{path}") as engine:
        assert (await engine.decide([check()]))[0].allowed
    async with engine_on(f"unix://pw:wrong@{path}") as engine:
        with pytest.raises(StoreError):
            await engine.decide([check()])


async def test_tls_is_verified(own_valkey, tmp_path):
    """The embedded binary speaks no TLS, so a terminator stands before it, as stunnel would."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(own_valkey.socket))
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with engine_on(f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}") as engine:
        assert (await engine.decide([check()]))[0].allowed
    async with engine_on(f"rediss://localhost:{port}") as engine:
        with pytest.raises(StoreError):
            await engine.decide([check()])
    server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_sentinel_names_the_server_to_use(server_dir: Path):
    port, sentinel_port = free_ports(2)
    server = ValkeyServer(
        server_dir / "valkey", options=["--bind", "127.0.0.1", "--port", str(port)]
    )
    server.start()
    config = server_dir / "sentinel.conf"
    config.write_text(
        f"port {sentinel_port}\nbind 127.0.0.1\ndir {server_dir}\n"
        f"sentinel monitor main 127.0.0.1 {port} 1\n"
    )
    sentinel = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await _until_it_answers(sentinel_port)
        url = f"redis+sentinel://127.0.0.1:{sentinel_port}/main"
        async with engine_on(url) as engine:
            assert (await engine.decide([check()]))[0].allowed
        async with engine_on(f"redis+sentinel://127.0.0.1:{sentinel_port}/other") as engine:
            with pytest.raises(StoreError):
                await engine.decide([check()])
    finally:
        sentinel.terminate()
        sentinel.wait()
        server.stop()


async def _until_it_answers(port: int) -> None:
    async with asyncio.timeout(PATIENT), Redis(port=port) as client:
        while True:
            try:
                await client.ping()
            except RedisConnectionError:
                await asyncio.sleep(0.02)  # another process: nothing tells us
            else:
                return


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", "must begin with"),
        ("localhost:6379", "must begin with"),
        ("redis://localhost:port", "not valid"),
        ("redis+sentinel://localhost:26379", "/service"),
        ("redis+sentinel://localhost:26379/main/x", "/db"),
        ("redis+cluster://localhost:7000/1", "without a path"),
        ("redis+cluster://", "host:port"),
        ("redis://localhost?no_such_option=1", "no_such_option"),
        ("redis+cluster://localhost?no_such_option=1", "no_such_option"),
    ],
)
def test_a_wrong_url_is_told_what_was_expected(url, expected):
    with pytest.raises(RedisUrlError, match=expected):
        connect(url)


def test_credentials_and_tls_reach_cluster_and_sentinel_clients():
    cluster = connect("rediss+cluster://user:p%40ss@a:7000,b:7001?ssl_cert_reqs=none")
    assert isinstance(cluster, RedisCluster)
    assert cluster.connection_kwargs["username"] == "user"
    assert cluster.connection_kwargs["password"] == "p@ss"
    sentinel = connect("redis+sentinel://user:pw@a:26379,b:26380/main/3?sentinel_password=own")
    pool = sentinel.connection_pool
    assert (pool.connection_kwargs["db"], pool.connection_kwargs["password"]) == (3, "pw")
    assert [
        s.connection_pool.connection_kwargs["port"] for s in pool.sentinel_manager.sentinels
    ] == [26379, 26380]
    assert pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs["password"] == "own"


async def test_a_redis_that_evicts_or_forgets_is_warned_of(own_valkey):
    client = connect(own_valkey.url)
    assert await warn_if_forgetful(client) == []
    await client.config_set("maxmemory", "100mb")
    await client.config_set("maxmemory-policy", "allkeys-lru")
    await client.config_set("appendonly", "no")
    evicts, forgets = sorted(await warn_if_forgetful(client), reverse=True)[::-1]
    assert "allkeys-lru" in evicts
    assert "append-only" in forgets
    await client.aclose()


async def test_a_cluster_is_asked_node_by_node_what_it_would_forget(valkey_cluster):
    client = connect(valkey_cluster.url)
    [forgets] = await warn_if_forgetful(client)
    assert "append-only" in forgets
    await client.aclose()


async def test_a_late_loop_is_not_an_outage(valkey_url, key_prefix):
    """The answer came in time, and this process was too busy to read it."""
    async with engine_on(valkey_url, key_prefix, deadline=0.05) as engine:
        await engine.warm_up()
        asked = asyncio.create_task(engine.decide([check()]))
        await asyncio.sleep(0)  # it is sent
        time.sleep(0.2)  # noqa: ASYNC251 - what a burst of other work does to the loop
        [verdict] = await asked
    assert verdict.allowed


async def test_a_warmed_up_engine_finds_its_script_there(own_valkey):
    async with engine_on(own_valkey.url) as engine, Redis.from_url(own_valkey.url) as admin:
        await engine.warm_up()
        await admin.config_resetstat()
        await engine.decide([check()])
        calls = await admin.info("commandstats")
    assert calls["cmdstat_evalsha"]["failed_calls"] == 0
    assert "cmdstat_eval" not in calls
