"""When a sidecar sweeps for itself: unless the maintenance jobs did so lately."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.quotas import sweep as module
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.sweep import FORGET_EVERY, Sweeper, sweep


class Store:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.away = False
        self.looks = self.forgets = 0

    async def due(self) -> list[str]:
        if self.away:
            raise LedgerUnavailable("PostgreSQL does not answer")
        self.looks += 1
        return []

    async def forget(self) -> int:
        self.forgets += 1
        return 0


@pytest.fixture
def store() -> Any:
    return Store()


@asynccontextmanager
async def sweeping(store: Store, answers: list[bool]) -> AsyncIterator[None]:
    """As many turns as there are answers to whether the jobs ran lately."""
    asked = iter(answers)
    over = asyncio.Event()

    async def maintained() -> bool:
        answer = next(asked, None)
        if answer is None:
            over.set()
            await asyncio.Event().wait()
        return bool(answer)

    task = asyncio.create_task(sweep(cast("QuotaStore", store), maintained))
    await over.wait()
    yield
    task.cancel()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0)


async def test_it_leaves_to_the_jobs_what_they_do(store: Any) -> None:
    async with sweeping(store, [True] * 50):
        assert (store.looks, store.forgets) == (0, 0)


async def test_without_jobs_it_sweeps_each_time_and_forgets_now_and_then(store: Any) -> None:
    async with sweeping(store, [False] * (2 * FORGET_EVERY + 1)):
        assert (store.looks, store.forgets) == (2 * FORGET_EVERY + 1, 3)


async def test_it_takes_over_and_gives_back(store: Any) -> None:
    async with sweeping(store, [True, False, False, True, False]):
        assert store.looks == 3


async def test_an_outage_is_told_once_until_it_is_over(store: Any) -> None:
    sweeper = Sweeper(store)
    with capture_logs() as logs:
        store.away = True
        assert [await sweeper.expire() for _ in range(3)] == [False] * 3
        store.away = False
        assert await sweeper.expire()
        store.away = True
        assert not await sweeper.expire()
    assert [line["event"] for line in logs] == ["quotas.not_swept"] * 2
