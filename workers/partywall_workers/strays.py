"""Jobs that a plain client of arq put beside the fair queue's own, where nobody takes them."""

import logging
from typing import Any

from partywall_workers.redis import FairRedis

_LOOKED_AT = 10_000
"""Those that are due first: what nobody takes is soon among them, and one call is enough."""

logger = logging.getLogger("partywall.worker")


async def warn_of_strays(redis: FairRedis) -> None:
    """Says how many there are; errors of redis-py pass through."""
    commands: Any = redis  # redis-py's annotations are those of both its faces
    queue = redis.default_queue_name
    members = await commands.zrange(queue, 0, _LOOKED_AT - 1)
    strays = sum(redis.names.parts(member.decode(errors="replace")) is None for member in members)
    if strays:
        logger.warning(
            "%d jobs in %s are of a plain client of arq and no tenant's: no worker runs them; "
            "enqueue with FairRedis, FairQueue or the sidecar, and remove these",
            strays,
            queue,
        )
