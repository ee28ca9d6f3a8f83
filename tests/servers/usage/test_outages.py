"""Outages as notices tell of them, and what Prometheus is told of notices."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import LedgerUnavailable, create_ledger_engine
from partywall_service.usage.notice_metrics import NoticeMetrics
from partywall_service.usage.notices import KINDS, STATUSES, Notice, NoticeStore
from partywall_service.usage.outages import OutageWatch


@pytest.fixture
def notices(ledger_engine: AsyncEngine) -> NoticeStore:
    return NoticeStore(ledger_engine)


class Store:
    """The shared store, which a test takes away; and the time."""

    def __init__(self) -> None:
        self.up = True
        self.time = 0.0


async def kinds(notices: NoticeStore) -> list[str]:
    return [one.kind for one in reversed(await notices.list(limit=100))]


async def test_an_outage_that_lasts_is_told_and_its_end(notices: NoticeStore) -> None:
    store = Store()
    watches = [
        OutageWatch(notices, lambda: store.up, "a", clock=lambda: store.time) for _ in range(3)
    ]  # one for each process of the sidecar

    async def look(at: float, *, up: bool) -> list[str]:
        store.time, store.up = at, up
        await asyncio.gather(*(watch.look() for watch in watches))
        return await kinds(notices)

    assert await look(0, up=True) == []
    assert await look(1, up=False) == []
    assert await look(10, up=True) == []  # a restart
    assert await look(11, up=False) == []
    assert await look(21, up=False) == ["sidecar.degraded"]
    assert await look(100, up=False) == ["sidecar.degraded"]
    both = ["sidecar.degraded", "sidecar.recovered"]
    assert await look(111.25, up=True) == both
    assert await look(112, up=True) == both
    (recovered, degraded) = await notices.list(limit=100)
    assert recovered.body["data"] == degraded.body["data"] | {"lasted_seconds": 100.2}
    assert await look(200, up=False) == both
    assert await look(220, up=False) == both  # so soon it is not told again
    assert await look(230, up=True) == both
    other = OutageWatch(notices, lambda: False, "b", clock=lambda: store.time)
    await other.look()
    store.time += 10
    await other.look()
    assert await kinds(notices) == [*both, "sidecar.degraded"]


async def test_an_outage_is_told_late_where_postgresql_was_away_too(
    notices: NoticeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    watch = OutageWatch(notices, lambda: store.up, "a", clock=lambda: store.time)

    async def fails(*_: object, **__: object) -> bool:
        raise LedgerUnavailable("it is away")

    store.up = False
    with monkeypatch.context() as patched:
        patched.setattr(notices, "write_unless_told", fails)
        for store.time in (0, 10, 11):
            await watch.look()
    await watch.look()
    assert await kinds(notices) == ["sidecar.degraded"]


async def test_prometheus_is_told_what_became_of_notices(
    notices: NoticeStore,
) -> None:
    await notices.write_unless_told(Notice("tenant.noisy", datetime.now(UTC), "acme", {}))
    (family,) = await NoticeMetrics(notices).families()
    values = {tuple(one.labels.values()): one.value for one in family.samples}
    assert len(values) == len(KINDS) * len(STATUSES)
    assert {labels for labels, value in values.items() if value} == {("tenant.noisy", "pending")}
    away = NoticeStore(create_ledger_engine("postgresql://nobody@127.0.0.1:1/nothing"))
    assert await NoticeMetrics(away).families() == ()
