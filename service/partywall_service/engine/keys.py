"""Every Redis key of the engine.

A key carries its tenant's shard as a hash tag, so that Redis Cluster spreads shards over nodes
while the checks of one shard still share a script call.
"""

from typing import Literal
from zlib import crc32

SHARDS = 256


def shard(tenant: str) -> int:
    """The tenant's shard, 0 to 255: CRC-32 of its id, the same in every process."""
    return crc32(tenant.encode()) % SHARDS


def window(prefix: str, tenant: str, limit: str, seconds: int) -> str:
    """The hash of the ring of one window, `seconds` long.

    The quota is no part of it, so a changed quota keeps what was already charged.
    """
    return f"{of_tenant(prefix, tenant)}:window:{limit}:{seconds}"


def lease(prefix: str, tenant: str, limit: str, name: str) -> str:
    """The string that says what a lease was granted, until it is returned or forgotten."""
    return f"{of_tenant(prefix, tenant)}:lease:{limit}:{name}"


def usage(prefix: str, tenant: str) -> str:
    """The hash of a tenant's counts: field `minute|meter`, a whole number."""
    return f"{of_tenant(prefix, tenant)}:usage"


def instances(prefix: str, kind: Literal["sidecars", "sdk"] = "sidecars") -> str:
    """The sorted set of processes last seen alive: member an instance id, score its last sign.

    Sidecars and SDK processes share a hash tag, because one script call tells both.
    """
    return f"{prefix}:{{instances}}:{kind}"


def of_tenant(prefix: str, tenant: str) -> str:
    """What every key of a tenant starts with, its shard as the hash tag."""
    return f"{prefix}:{{s{shard(tenant)}}}:{tenant}"
