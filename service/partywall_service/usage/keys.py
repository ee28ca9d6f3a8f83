"""Every Redis key of usage.

What is of a shard and of no tenant stands where a tenant's id would, as an empty one: ids have no
colon, so nothing that a tenant or a process is called can come between.
"""

from hashlib import sha1

from partywall_service.engine.keys import SHARDS, shard, usage

__all__ = ["SHARDS", "gone", "metered", "reporter", "rolled", "shard", "usage"]


def metered(prefix: str, number: int) -> str:
    """The set of a shard's tenants that have such a hash."""
    return f"{_of_shard(prefix, number)}:metered"


def rolled(prefix: str, number: int) -> str:
    """The newest minute that the roll-up has taken out of a shard."""
    return f"{_of_shard(prefix, number)}:rolled"


def reporter(prefix: str, number: int, instance: str) -> str:
    """The number of the last report of a process that was applied on a shard."""
    return f"{_of_shard(prefix, number)}:sdk:{instance}"


def gone(prefix: str, tenant: str) -> str:
    """The tombstone of a tenant that was erased; it does not tell whose it is."""
    digest = sha1(tenant.encode(), usedforsecurity=False).hexdigest()
    return f"{_of_shard(prefix, shard(tenant))}:gone:{digest}"


def _of_shard(prefix: str, number: int) -> str:
    return f"{prefix}:{{s{number}}}:"
