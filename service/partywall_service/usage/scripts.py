"""A typed façade over each Lua script: its signature is the script's calling contract."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis.asyncio import Redis, RedisCluster

from partywall.protocol import TenantUsage
from partywall_service.engine.scripts import Script
from partywall_service.usage import keys
from partywall_service.usage.meters import MICROSECONDS
from partywall_service.usage.source import Point

Flat = list[bytes]
"""Fields of a tenant's counts, each followed by its value."""


class AddScript:
    """`add.lua`: a report, or what one shard or some have of it, added once.

    Args:
        prefix: what every key of this installation starts with.
    """

    def __init__(self, prefix: str) -> None:
        self._script = Script("add", __package__)
        self._prefix = prefix

    async def __call__(
        self,
        client: Redis | RedisCluster,
        usage: Sequence[TenantUsage],
        *,
        shard: int,
        instance: str,
        sequence: int,
        age: float,
        now: int | None = None,
    ) -> int:
        """How many of the tenants are counted: by this call, or by an earlier one of the same.

        Args:
            client: the server, or the node, that holds every tenant's counts.
            usage: of one shard if the client is a cluster's.
            shard: under which the number of the instance's last report is kept. The same for the
                same part of every report.
            instance: whose report it is.
            sequence: the report's number.
            age: seconds since the oldest of its counts.
            now: microseconds since the epoch in place of the server's clock, for tests.
        """
        names = [keys.reporter(self._prefix, shard, instance)]
        meters: dict[str, int] = {}
        counts: list[int] = []
        for tenant in usage:
            names.append(keys.usage(self._prefix, tenant.tenant))
            names.append(keys.gone(self._prefix, tenant.tenant))
            counts.append(len(tenant.meters))
            for meter, rise in tenant.meters.items():
                counts += (meters.setdefault(meter, len(meters) + 1), rise)
        microseconds = round(age * MICROSECONDS)
        told = " ".join(meters), " ".join(map(str, counts))
        clock = "" if now is None else str(now)
        reply = await self._script(client, names, [clock, sequence, microseconds, *told])
        return int(reply)


class Read(NamedTuple):
    """What `read.lua` answered.

    Attributes:
        minute: that runs.
        counts: of each tenant, as far as it came; of one that has too many, how many.
    """

    minute: int
    counts: list[Flat | int]


class ReadScript:
    """`read.lua`: the counts of some tenants.

    Args:
        prefix: what every key of this installation starts with.
    """

    def __init__(self, prefix: str) -> None:
        self._script = Script("read", __package__)
        self._prefix = prefix

    async def __call__(
        self,
        client: Redis | RedisCluster,
        tenants: Sequence[str],
        *,
        enough: int,
        now: int | None = None,
    ) -> Read:
        """The counts of the first of these tenants, of one at least.

        Args:
            client: the server, or the node, that holds every tenant's counts.
            tenants: of one shard if the client is a cluster's; at least one.
            enough: counts for one call; who has more is not read.
            now: microseconds since the epoch in place of the server's clock, for tests.
        """
        names = [keys.usage(self._prefix, tenant) for tenant in tenants]
        clock = "" if now is None else str(now)
        minute, *counts = await self._script(client, names, [clock, enough])
        return Read(minute, counts)


class ForgetScript:
    """`forget.lua`: counts removed that are as they were read.

    Args:
        prefix: what every key of this installation starts with.
    """

    def __init__(self, prefix: str) -> None:
        self._script = Script("forget", __package__)
        self._prefix = prefix

    async def __call__(
        self, client: Redis | RedisCluster, points: Mapping[str, Sequence[Point]]
    ) -> int:
        """How many were removed.

        Args:
            client: the server, or the node, that holds every tenant's counts.
            points: by tenant, of one shard if the client is a cluster's; a tenant with none is
                only struck off where it has no counts.
        """
        names = []
        args: list[str | int] = []
        for tenant, of_tenant in points.items():
            names.append(keys.usage(self._prefix, tenant))
            args.append(len(of_tenant))
            args += [f"{point.minute}|{point.meter}" for point in of_tenant]
            args += [point.value for point in of_tenant]
        return int(await self._script(client, names, args))


class BuryScript:
    """`bury.lua`: a tombstone in place of a tenant's counts.

    Args:
        prefix: what every key of this installation starts with.
    """

    def __init__(self, prefix: str) -> None:
        self._script = Script("bury", __package__)
        self._prefix = prefix

    async def __call__(
        self, client: Redis | RedisCluster, tenant: str, *, now: int | None = None
    ) -> bool:
        """Whether the tenant had counts.

        Args:
            client: the server, or the cluster, that holds them.
            tenant: who is erased.
            now: microseconds since the epoch in place of the server's clock, for tests.
        """
        names = [
            keys.gone(self._prefix, tenant),
            keys.usage(self._prefix, tenant),
            keys.metered(self._prefix, keys.shard(tenant)),
        ]
        clock = "" if now is None else str(now)
        return bool(await self._script(client, names, [clock, tenant]))
