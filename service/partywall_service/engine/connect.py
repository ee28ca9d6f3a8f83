"""From a URL to a redis-py client: one server, Sentinel or Cluster, with ACL and TLS."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from partywall.deadline import within
from partywall_service.engine.base import StoreError

SCHEMES = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
    "redis+cluster:// or rediss+cluster://"
)

log = structlog.get_logger()


class RedisUrlError(ValueError):
    """The Redis URL is not one that Partywall understands; the message says what it expected."""


def connect(url: str) -> Redis | RedisCluster:
    """A client for `url`; it connects at its first command.

    A command whose connection broke is sent once more: a check charged twice admits less, never
    more. There is no socket timeout, because every caller sets its own deadline.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, `unix://path`,
            `redis+sentinel://[user:password@]host:port,host:port/service[/db]`,
            `redis+cluster://[user:password@]host:port,host:port`; TLS by `rediss+…`, its options
            (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`) in the query. Sentinels
            with a password of their own: `sentinel_username`, `sentinel_password` in the query.

    Raises:
        RedisUrlError: the URL is not of these forms.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis", "rediss", "unix"):
            client: Redis = Redis.from_url(url, **_resilience())
            _read_every_option(client)
            return client
        transport, _, kind = parts.scheme.partition("+")
        if transport in ("redis", "rediss") and kind in ("sentinel", "cluster"):
            hosts = _hosts(parts, 26379 if kind == "sentinel" else 6379)
            options = _options(parts, transport)
            build = _sentinel if kind == "sentinel" else _cluster
            return build(parts, hosts, options)
    except (ValueError, TypeError) as exc:
        raise RedisUrlError(f"the Redis URL is not valid: {exc}") from exc
    raise RedisUrlError(f"the Redis URL must begin with {SCHEMES}; got {parts.scheme!r}")


async def disconnect(client: Redis | RedisCluster) -> None:
    """Closes the client and, where Sentinel named its server, the connections to Sentinel."""
    await client.aclose()
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


@asynccontextmanager
async def answering_within(deadline: float) -> AsyncIterator[None]:
    """The one place where what Redis and its driver raise becomes `StoreError`.

    Args:
        deadline: seconds for everything inside.
    """
    try:
        async with within(deadline):
            yield
    except TimeoutError as exc:
        raise StoreError(f"Redis did not answer within {deadline * 1000:g} ms") from exc
    except (RedisError, OSError) as exc:
        raise StoreError(f"Redis failed: {exc}") from exc


async def warn_if_forgetful(client: Redis | RedisCluster) -> list[str]:
    """What a Redis that evicts or forgets would cost, logged and given back; none is the rule.

    A server that cannot be asked now, or does not say, is not warned of.
    """
    try:
        if isinstance(client, RedisCluster):
            infos = await client.info(target_nodes=RedisCluster.PRIMARIES)
            reports = list(infos.values()) if _by_node(infos) else [infos]
        else:
            reports = [await client.info()]
    except (RedisError, OSError) as exc:
        log.warning("store.unasked", cause=str(exc), what="whether Redis evicts or forgets keys")
        return []
    warnings = {warning for report in reports for warning in _warnings(report)}
    for warning in sorted(warnings):
        log.warning("store.forgetful", warning=warning)
    return sorted(warnings)


def _warnings(info: Mapping[str, Any]) -> list[str]:
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", 0) > 0:
        warnings.append(
            f"this Redis evicts keys when it is full (maxmemory-policy {policy}): a window evicted "
            "is a window forgotten, and its tenant may spend its quota again; set noeviction"
        )
    if not info.get("aof_enabled", 0):
        warnings.append(
            "this Redis keeps no append-only file: if it crashes, windows since its last snapshot "
            "are forgotten, and tenants may spend those quotas again; set appendonly yes"
        )
    return warnings


def _by_node(infos: Mapping[str, Any]) -> bool:
    return all(isinstance(info, Mapping) for info in infos.values())


def _resilience() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [RedisConnectionError],
        "health_check_interval": 0,
    }


def _read_every_option(client: Redis) -> None:
    """Makes a connection without connecting, so that an unknown option is found now."""
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # redis-py 5


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{address}")
        if not one.hostname:
            raise ValueError("expected host:port, host:port, …")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _options(parts: SplitResult, transport: str) -> dict[str, Any]:
    """Credentials and the query's options, read as redis-py reads a plain URL's."""
    credentials, at, _ = parts.netloc.rpartition("@")
    options: dict[str, Any] = dict(
        parse_url(f"{transport}://{credentials}{at}host{'?' if parts.query else ''}{parts.query}")
    )
    for connection_detail in ("host", "port", "db", "connection_class"):
        options.pop(connection_detail, None)
    if transport == "rediss":
        options["ssl"] = True
    return options


def _sentinel(parts: SplitResult, hosts: list[tuple[str, int]], options: dict[str, Any]) -> Redis:
    service, _, db = unquote(parts.path.strip("/")).partition("/")
    if not service or (db and not db.isdecimal()):
        raise ValueError("expected redis+sentinel://host:port/service, and perhaps /db")
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    sentinel = Sentinel(hosts, sentinel_kwargs=own | tls)  # type: ignore[no-untyped-call] # redis-py 5
    master: Redis = sentinel.master_for(service, db=int(db or 0), **_resilience(), **options)
    return master


def _cluster(
    parts: SplitResult, hosts: list[tuple[str, int]], options: dict[str, Any]
) -> RedisCluster:
    if parts.path.strip("/"):
        raise ValueError("expected redis+cluster://host:port,host:port without a path")
    nodes = [ClusterNode(host, port) for host, port in hosts]
    cluster: RedisCluster = RedisCluster(startup_nodes=nodes, **options)
    return cluster
