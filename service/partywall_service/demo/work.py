"""The sample's background job, and the workers that run it: a fair one, and arq's own."""

import asyncio
import time
from typing import Any

from partywall_workers import FairWorkerSettings

AT_ONCE = 5
JOB_SECONDS = 0.02
"""So a worker does 250 jobs a second at most."""

WAITS = "demo:waits"
"""The list of how long jobs waited: `tenant seconds`, as each starts."""


async def send_invoice(ctx: dict[str, Any], tenant: str, asked_at: float) -> None:
    """Says how long it waited, then does its work."""
    await ctx["redis"].rpush(WAITS, f"{tenant} {time.time() - asked_at}")
    await asyncio.sleep(JOB_SECONDS)


class Fair(FairWorkerSettings):
    """Partywall's worker."""

    functions = (send_invoice,)
    max_jobs = AT_ONCE


class Plain:
    """arq's own, with its defaults: one queue, in order of arrival."""

    functions = (send_invoice,)
    max_jobs = AT_ONCE
