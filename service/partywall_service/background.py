"""Tasks that run beside the requests, for as long as the sidecar does."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

RESTART_DELAY = 1.0
"""Seconds before a task that failed is started again."""

log = structlog.get_logger()


def run_in_background(
    name: str, run: Callable[[], Awaitable[object]], *, once: bool = False
) -> asyncio.Task[None]:
    """Runs `run` until the task is cancelled; should it fail, says so and runs it again.

    A defect in one of them must not silently end the watch over the store, the policy or the
    tenants while requests go on.

    Args:
        name: what the log calls it.
        run: makes one run of it.
        once: ends with the first run that does not fail.
    """

    async def supervise() -> None:
        while True:
            try:
                await run()
                if once:
                    return
            except Exception:
                log.exception("background.failed", task=name, again_in=RESTART_DELAY)
            await asyncio.sleep(RESTART_DELAY)

    return asyncio.create_task(supervise(), name=name)


async def stop_in_background(task: asyncio.Task[None]) -> None:
    """Cancels the task and waits until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
