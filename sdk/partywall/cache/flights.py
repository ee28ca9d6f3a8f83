"""One call at a time for each key, however many ask."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


class Flights(Generic[_Key, _Result]):
    """Who asks while a call of the same key is under way gets its result, or its error.

    A call goes on when those who wait for it are cancelled: others may have joined.
    """

    def __init__(self) -> None:
        self._tasks: dict[_Key, asyncio.Task[_Result]] = {}

    async def join(self, key: _Key, begin: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """The result of the call under way, or of the one that `begin` makes."""
        task = self._tasks.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = asyncio.create_task(begin())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: _Key, task: asyncio.Task[_Result]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more: asyncio would complain of it
