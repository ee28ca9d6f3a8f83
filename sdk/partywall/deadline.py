"""A deadline for others, that does not count this process's own lag."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Ends what is inside after `seconds`.

    Where this process's own loop was late, the answer may have come and not been read yet; so much
    time, `seconds` at most, is given on top, or a burst of requests would look like an outage.

    Raises:
        TimeoutError: it did not end in time.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def end() -> None:
            late = loop.time() - due
            limit.reschedule(loop.time() + min(late, seconds))

        timer = loop.call_at(due, end)
        try:
            yield
        finally:
            timer.cancel()
