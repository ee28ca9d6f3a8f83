"""The maintenance jobs. Each may run anywhere, any number of times, two at once."""

from typing import Any

from partywall_service.maintenance.mark import Mark
from partywall_service.quotas.sweep import Sweeper

SWEEPER, MARK = "sweeper", "mark"
"""Where the worker's context has them."""


async def expire_reservations(ctx: dict[str, Any]) -> None:
    """Gives back what expired reservations hold."""
    sweeper: Sweeper = ctx[SWEEPER]
    mark: Mark = ctx[MARK]
    if await sweeper.expire():
        await mark.leave()


async def forget_answers(ctx: dict[str, Any]) -> None:
    """Removes answers to repetitions that are kept no longer."""
    sweeper: Sweeper = ctx[SWEEPER]
    await sweeper.forget()
