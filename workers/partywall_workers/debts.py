"""Quota items that jobs consumed, and never used."""

import json
import logging
from typing import Any

from partywall import Partywall
from partywall.errors import PartywallError, SidecarUnavailable
from partywall_workers.charges import NO_TOKEN
from partywall_workers.redis import FairRedis

_MOST = 100

logger = logging.getLogger("partywall.worker")


async def pay_back(redis: FairRedis, sidecar: Partywall) -> None:
    """Gives back what the queue says is owed; each debt once, by its idempotency key.

    A debt stays until it is paid, so any worker may die in between.

    Raises:
        SidecarUnavailable, ConfigurationError, Unauthenticated, Forbidden: it is owed still.
        RedisError: as is what follows.
    """
    commands: Any = redis  # redis-py's annotations are those of both its faces
    key = redis.names.one("owed")
    for owed in await commands.lrange(key, 0, _MOST - 1):
        debt = json.loads(owed)
        tenant, items = debt["tenant"], debt["items"]
        try:
            await sidecar.release(tenant, items, idempotency_key=debt["key"])
        except (SidecarUnavailable, *NO_TOKEN):
            raise
        except PartywallError as exc:
            logger.warning("%s of tenant %s cannot be given back: %s", items, tenant, exc)
        await commands.lrem(key, 1, owed)
