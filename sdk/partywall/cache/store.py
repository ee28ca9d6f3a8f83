"""`TenantCache`: what a host app calls."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args, overload

from redis.asyncio import Redis, RedisCluster

from partywall.cache.errors import CacheFull
from partywall.cache.flights import Flights
from partywall.cache.keys import TenantKeys, checked_prefix, of_tenant
from partywall.cache.limits import AskedLimit, FixedLimit, Limit, QuotaClient, QuotaLimit
from partywall.cache.scripts import Commands
from partywall.context import current_tenant
from partywall.errors import ConfigurationError

Policy = Literal["evict", "refuse"]
"""What happens at the cap: the tenant's own least recently used key leaves, or `CacheFull`."""

GOT_AT_ONCE = 500
"""Keys of one call of `get_many` to Redis, so that its other clients do not wait long."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Value = TypeVar("_Value")


class Usage(NamedTuple):
    """What a tenant takes of its cache.

    Attributes:
        keys: how many of its keys live.
        limit: how many may; None for any number.
    """

    keys: int
    limit: int | None


class TenantCache(Generic[_In, _Out]):
    """A cache in the host's own Redis in which no tenant takes another's room.

    Every method is for `tenant`, or left out for `current_tenant()`, and raises what redis-py does,
    unchanged: the Redis is the host's. A key that is not set to expire counts until it is deleted.

    Args:
        redis: a redis-py asyncio client, of one server or of a cluster; the host closes it.
        limit: how many live keys a tenant may have: a number, or a function of the tenant's id.
        client: instead of `limit`: a `Partywall`, which is asked for the tier's quota.
        resource: the quota that is asked for.
        policy: at the cap, `evict` the tenant's own least recently used, or `refuse`.
        ttl: seconds that keys live unless `set` says otherwise; None for ever.
        prefix: what every key in Redis begins with.
        dumps: makes bytes of a value; without it values are bytes or str, and come back as bytes.
        loads: makes a value of bytes again.
        clock: microseconds since the epoch in place of Redis's clock, for tests.

    Raises:
        ConfigurationError: an argument cannot be.
    """

    @overload
    def __init__(
        self: "TenantCache[bytes | str, bytes]",
        redis: Redis | RedisCluster,
        *,
        limit: Limit | None = None,
        client: QuotaClient | None = None,
        resource: str = "cache_keys",
        policy: Policy = "evict",
        ttl: float | None = None,
        prefix: str = "pwcache",
        clock: Callable[[], int] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "TenantCache[_Value, _Value]",
        redis: Redis | RedisCluster,
        *,
        limit: Limit | None = None,
        client: QuotaClient | None = None,
        resource: str = "cache_keys",
        policy: Policy = "evict",
        ttl: float | None = None,
        prefix: str = "pwcache",
        dumps: Callable[[_Value], bytes | str],
        loads: Callable[[bytes], _Value],
        clock: Callable[[], int] | None = None,
    ) -> None: ...
    def __init__(
        self,
        redis: Redis | RedisCluster,
        *,
        limit: Limit | None = None,
        client: QuotaClient | None = None,
        resource: str = "cache_keys",
        policy: Policy = "evict",
        ttl: float | None = None,
        prefix: str = "pwcache",
        dumps: Callable[[Any], bytes | str] | None = None,
        loads: Callable[[bytes], Any] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if policy not in get_args(Policy):
            raise ConfigurationError(f"expected policy to be 'evict' or 'refuse'; got {policy!r}")
        if (dumps is None) != (loads is None):
            raise ConfigurationError("expected both dumps and loads, or neither; got one of them")
        self._limit_of = _limit_of(limit, client, resource)
        self._evicts = policy == "evict"
        self._ttl = _milliseconds(ttl)
        self._prefix = checked_prefix(prefix)
        self._dumps: Callable[[_In], object] = dumps or _unchanged
        self._loads: Callable[[bytes], _Out] = loads or _unchanged
        self._commands = Commands(redis, clock)
        self._loading: Flights[tuple[str, str], bytes] = Flights()

    async def get(self, key: str, *, tenant: str | None = None) -> _Out | None:
        """The value, or None where there is none; under `evict` it was used now."""
        names = self._keys(tenant)
        [raw] = await self._commands.get(names, (names.value(key),), touch=self._evicts)
        return None if raw is None else self._loads(raw)

    async def get_many(
        self, keys: Sequence[str], *, tenant: str | None = None
    ) -> list[_Out | None]:
        """As `get`, of several keys, in their order."""
        names = self._keys(tenant)
        values = [names.value(key) for key in keys]
        raws: list[bytes | None] = []
        for first in range(0, len(values), GOT_AT_ONCE):
            part = values[first : first + GOT_AT_ONCE]
            raws += await self._commands.get(names, part, touch=self._evicts)
        return [None if raw is None else self._loads(raw) for raw in raws]

    async def set(
        self, key: str, value: _In, *, ttl: float | None = None, tenant: str | None = None
    ) -> None:
        """Sets a value; a key that lives already needs no room.

        Args:
            key: not empty.
            value: as `dumps` takes it; without one bytes or str.
            ttl: seconds that it lives, to the millisecond; None for the cache's own `ttl`,
                `math.inf` for ever.
            tenant: its id.

        Raises:
            CacheFull: there is no room: the policy is to refuse, or the cap is 0.
            ConfigurationError: an argument cannot be.
        """
        of = self._tenant(tenant)
        await self._store(of, key, self._dump(value), ttl)

    async def get_or_set(
        self,
        key: str,
        load: Callable[[], Awaitable[_In]],
        *,
        ttl: float | None = None,
        tenant: str | None = None,
    ) -> _Out:
        """The value, or what `load` gives, which is then set.

        Where several tasks of this process miss the same key at once, one loads, and its value or
        error is everybody's. Where there is no room the value is given, though not kept.
        """
        of = self._tenant(tenant)
        names = self._keys(of)
        [raw] = await self._commands.get(names, (names.value(key),), touch=self._evicts)
        if raw is None:
            raw = await self._loading.join((of, key), lambda: self._fill(of, key, load, ttl))
        return self._loads(raw)

    async def exists(self, key: str, *, tenant: str | None = None) -> bool:
        """Whether a key lives; it counts as no use of it."""
        names = self._keys(tenant)
        return await self._commands.exists(names, names.value(key))

    async def delete(self, key: str, *, tenant: str | None = None) -> bool:
        """Deletes a key, and says whether it lived."""
        names = self._keys(tenant)
        return await self._commands.delete(names, names.value(key))

    async def clear(self, *, tenant: str | None = None) -> int:
        """Deletes every key of the tenant, and says how many lived.

        Some hundred at a time, until none is left: what others set meanwhile may go too.
        """
        names = self._keys(tenant)
        cleared, left = await self._commands.clear(names)
        while left:
            lived, left = await self._commands.clear(names)
            cleared += lived
        return cleared

    async def usage(self, *, tenant: str | None = None) -> Usage:
        """How many keys of the tenant live, and how many may."""
        of = self._tenant(tenant)
        return Usage(await self._commands.count(self._keys(of)), await self._limit_of(of))

    async def _store(self, tenant: str, key: str, raw: bytes, ttl: float | None) -> None:
        names = self._keys(tenant)
        value = names.value(key)
        lives = self._ttl if ttl is None else _milliseconds(ttl)
        limit = await self._limit_of(tenant)
        stored = -1
        while stored == -1:  # a cap that was lowered by much: room is made in several steps
            stored = await self._commands.set(
                names, value, raw, ttl=lives, limit=limit, evicts=self._evicts
            )
        if limit is not None and not stored:
            raise CacheFull(tenant, limit)

    async def _fill(
        self, tenant: str, key: str, load: Callable[[], Awaitable[_In]], ttl: float | None
    ) -> bytes:
        raw = self._dump(await load())
        try:
            await self._store(tenant, key, raw, ttl)
        except CacheFull:
            return raw
        return raw

    def _keys(self, tenant: str | None) -> TenantKeys:
        return of_tenant(self._prefix, self._tenant(tenant))

    def _tenant(self, tenant: str | None) -> str:
        return current_tenant().id if tenant is None else tenant

    def _dump(self, value: _In) -> bytes:
        raw = self._dumps(value)
        if isinstance(raw, str):
            return raw.encode()
        if not isinstance(raw, bytes):
            raise ConfigurationError(
                f"expected bytes or str, or dumps= and loads= to make them; got {type(raw)}"
            )
        return raw


def _unchanged(value: Any) -> Any:  # noqa: ANN401 - the overloads say what goes without a pair
    return value


def _limit_of(
    limit: Limit | None, client: QuotaClient | None, resource: str
) -> Callable[[str], Awaitable[int | None]]:
    if client is not None and limit is None:
        return QuotaLimit(client, resource)
    if client is not None or limit is None:
        raise ConfigurationError("expected limit= or client=, one of them, for each tenant's cap")
    return AskedLimit(limit) if callable(limit) else FixedLimit(limit)


def _milliseconds(ttl: float | None) -> int | None:
    """A TTL as Redis takes it, None for ever; at least a millisecond."""
    if ttl is None or ttl == math.inf:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < 1e10:
        raise ConfigurationError(f"expected a ttl in seconds, above 0; got {ttl!r}")
    return math.ceil(ttl * 1000)
