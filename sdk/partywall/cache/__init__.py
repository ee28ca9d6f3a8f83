"""A cache in the host's own Redis in which no tenant takes another's room.

Needs `pip install 'partywall[cache]'`, and Redis 6.2 or newer, or Valkey. Reading order: `store`
(what a host calls), `scripts` and `lua/` (what Redis does), `keys`, `limits`.
"""

try:
    from redis import asyncio as _asyncio  # noqa: F401 - asked for first, to say what is missing
except ModuleNotFoundError as exc:
    if exc.name != "redis":
        raise
    raise ImportError("partywall.cache needs redis-py: pip install 'partywall[cache]'") from exc

from partywall.cache.errors import CacheFull
from partywall.cache.store import Policy, TenantCache, Usage

__all__ = ["CacheFull", "Policy", "TenantCache", "Usage"]
