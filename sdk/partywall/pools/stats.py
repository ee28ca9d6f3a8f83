"""How full the pools are, at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TenantUse:
    """What one tenant holds and wants, in all pools together.

    Attributes:
        in_use: its connections.
        waiting: its checkouts that wait for one.
    """

    in_use: int
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How full one pool is.

    Attributes:
        size: connections it may have at once.
        in_use: those that are checked out.
        waiting: checkouts that wait for one.
    """

    size: int
    in_use: int
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """All pools and tenants.

    Attributes:
        shared: the pool of everybody.
        dedicated: the open pools of single tenants, the least recently used first.
        tenants: those who hold or want something now.
    """

    shared: PoolUse
    dedicated: Mapping[str, PoolUse]
    tenants: Mapping[str, TenantUse]
