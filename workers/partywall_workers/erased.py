"""What is asked for a tenant that was erased, while a sidecar looks whether it is served again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from partywall_workers.errors import TenantErased

PATIENCE = 1.0
"""Seconds that a sidecar has to say so; it takes milliseconds."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1


class _Answer(Protocol):
    @property
    def what(self) -> str: ...


Answer = TypeVar("Answer", bound=_Answer)


async def while_asked(tenant: str, act: Callable[[], Awaitable[Answer]]) -> Answer:
    """Acts, and again while a sidecar is asked.

    Raises:
        TenantErased: none has said that the tenant is served; or it is no matter of that.
    """
    until = time.monotonic() + PATIENCE
    pause = _FIRST_PAUSE
    answer = await act()
    while answer.what == "asked" and time.monotonic() < until:
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        answer = await act()
    if answer.what in ("asked", "gone"):
        raise TenantErased(tenant)
    return answer
