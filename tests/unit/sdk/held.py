"""Permits of one process, in virtual time, on a sidecar that answers what a test wants."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from partywall.decision import Decision
from partywall.errors import SidecarUnavailable
from partywall.permits import Permits
from tests.support.virtual_time import run_virtually
from tests.unit.sdk.asgi import (
    Sidecar,
)


def virtually(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test in virtual time: sleeps are exact, and take none."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        async def main() -> None:
            await asyncio.sleep(100)  # clocks do not begin at zero
            await test(*args, **options)

        run_virtually(main())

    return run


def permits_of(sidecar: Sidecar, **options: Any) -> Permits:
    clock = asyncio.get_running_loop().time
    return Permits(sidecar.lease, **{"clock": clock, "instance": "one", **options})


async def decided(permits: Permits, *tenants: str, cost: int = 1) -> list[Decision]:
    """A check of each tenant, all at once."""
    return await asyncio.gather(*(permits.decide(name, "requests", cost) for name in tenants))


async def make_hot(permits: Permits, tenant: str = "acme") -> None:
    """Asks twice in short order, which leases units ahead."""
    await permits.decide(tenant, "requests")
    await asyncio.sleep(0.01)
    await permits.decide(tenant, "requests")


AWAY = SidecarUnavailable("away")
