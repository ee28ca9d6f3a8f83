"""The host app's own functions that are told of crossings."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from partywall.errors import ConfigurationError
from partywall.quotas.records import Crossing

CrossingHook = Callable[[Crossing], object]
"""Told of each crossing; where it returns an awaitable, that is awaited."""

log = logging.getLogger("partywall")


class Hooks:
    """Hooks in the order in which they came."""

    def __init__(self) -> None:
        self._hooks: list[CrossingHook] = []

    def add(self, hook: CrossingHook) -> None:
        """Adds one.

        Raises:
            ConfigurationError: it cannot be called.
        """
        if not callable(hook):
            raise ConfigurationError(f"expected on_crossing to be callable; got {hook!r}")
        self._hooks.append(hook)

    async def tell(
        self, crossings: Iterable[Crossing], finish: Callable[[Awaitable[Any]], Awaitable[Any]]
    ) -> None:
        """Tells every hook of every crossing; what they raise is logged.

        Args:
            crossings: which.
            finish: gives the result of what a hook returned, where that is an awaitable.
        """
        for crossing in crossings:
            for hook in list(self._hooks):
                try:
                    said = hook(crossing)
                    if inspect.isawaitable(said):
                        await finish(said)
                except Exception:  # whatever the app's own raises: the change is made
                    log.exception("a hook failed that was told of %r", crossing)
