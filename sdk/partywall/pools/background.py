"""Work that goes on whoever is cancelled."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class Background:
    """Tasks that are kept until they are done; none of them runs as a tenant."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts it in an empty context, so that a pool that is closed holds no request."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finished(self) -> None:
        """Waits until none is left; a failure shows in the log of its loop."""
        while self._tasks:
            await asyncio.wait(self._tasks)
