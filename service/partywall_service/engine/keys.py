"""Every Redis key of the engine.

A key carries its tenant's shard as a hash tag, so that Redis Cluster spreads shards over nodes
while the checks of one shard still share a script call.
"""

from zlib import crc32

SHARDS = 256


def shard(tenant: str) -> int:
    """The tenant's shard, 0 to 255: CRC-32 of its id, the same in every process."""
    return crc32(tenant.encode()) % SHARDS


def ring(prefix: str, tenant: str, limit: str, window: int) -> str:
    """The hash of one window's ring; `window` in seconds.

    The quota is no part of it, so a changed quota keeps what was already charged.
    """
    return f"{prefix}:{{s{shard(tenant)}}}:{tenant}:ring:{limit}:{window}"


def instances(prefix: str) -> str:
    """The sorted set of sidecars last seen alive: member an instance id, score its last beat."""
    return f"{prefix}:instances"
