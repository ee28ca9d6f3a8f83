"""What a sidecar counts while the store is away is added when it is back: once, and all of it."""

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from partywall_service.engine.base import StoreError
from partywall_service.usage import kept
from partywall_service.usage.kept import KeptCounts


class Store:
    """Adds as the real one does: each number once. It may be away, or lose its answers.

    Attributes:
        counted: by tenant and meter.
        reports: all that were given, repetitions too.
        asked: released by each that is given.
        added: set by each that is added.
    """

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.reports = []
        self.away = self.mute = False
        self.asked = asyncio.Semaphore(0)
        self.added = asyncio.Event()
        self._last: dict[str, int] = {}

    async def add(self, report):
        self.reports.append(report)
        self.asked.release()
        await asyncio.sleep(0)
        if self.away:
            raise StoreError("away")
        if report.sequence > self._last.get(report.instance, 0):
            self._last[report.instance] = report.sequence
            for one in report.usage:
                for meter, n in one.meters.items():
                    self.counted[one.tenant, meter] += n
            self.added.set()
        if self.mute:
            raise StoreError("the answer was lost")
        return len(report.usage)


class Lost:
    """How many were given up."""

    def __init__(self) -> None:
        self.total = 0

    def inc(self, amount: float) -> None:
        self.total += amount


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def lost() -> Lost:
    return Lost()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(store: Store, lost: Lost, clock: Clock) -> KeptCounts:
    return KeptCounts(store, lost, clock=clock)


async def test_nothing_counted_is_nothing_to_add(counts, store):
    await counts.flush()
    assert store.reports == []


async def test_counts_come_together_until_they_are_added(counts, store, clock):
    for _ in range(3):
        counts.count("acme", "requests", "admitted")
        counts.count("acme", "requests", "degraded")
        clock.now += 2
    counts.count("beta", "exports", "denied")
    await counts.flush()
    assert store.counted == {
        ("acme", "limits.requests.admitted"): 3,
        ("acme", "limits.requests.degraded"): 3,
        ("beta", "limits.exports.denied"): 1,
    }
    (report,) = store.reports
    assert report.age == 6.0


async def test_while_the_store_is_away_they_are_kept(counts, store, clock):
    store.away = True
    counts.count("acme", "requests", "admitted")
    with pytest.raises(StoreError):
        await counts.flush()
    clock.now += 60
    counts.count("acme", "requests", "admitted")
    store.away = False
    await counts.flush()
    assert store.counted == {("acme", "limits.requests.admitted"): 2}
    first, again, second = store.reports
    assert (first.sequence, again.sequence, second.sequence) == (1, 1, 2)
    assert (again.age, second.age) == (60.0, 0.0)


async def test_what_was_added_though_the_answer_was_lost_counts_once(counts, store):
    store.mute = True
    counts.count("acme", "requests", "admitted")
    for _ in range(3):
        with pytest.raises(StoreError):
            await counts.flush()
        counts.count("acme", "requests", "admitted")
    store.mute = False
    await counts.flush()
    assert store.counted == {("acme", "limits.requests.admitted"): 4}


async def test_two_flushes_at_once_are_one_after_the_other(counts, store):
    counts.count("acme", "requests", "admitted")
    await asyncio.gather(counts.flush(), counts.flush())
    assert len(store.reports) == 1


async def test_many_tenants_take_several_reports(counts, store, monkeypatch):
    monkeypatch.setattr(kept, "MAX_ITEMS", 10)
    for number in range(25):
        counts.count(f"t{number}", "requests", "admitted")
    await counts.flush()
    assert [len(report.usage) for report in store.reports] == [10, 10, 5]
    assert [report.sequence for report in store.reports] == [1, 2, 3]
    assert store.counted.total() == 25


async def test_what_has_no_room_is_given_up_and_told(counts, store, lost, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 3)
    with capture_logs() as logs:
        for tenant in ("a", "b", "c", "d", "e"):
            counts.count(tenant, "requests", "admitted")
        counts.count("a", "requests", "denied")
        counts.count("a", "requests", "admitted")  # one that is there has room
    assert lost.total == 3
    assert [line["event"] for line in logs] == ["usage.full"]
    await counts.flush()
    assert store.counted.total() == 4
    counts.count("d", "requests", "admitted")
    await counts.flush()
    assert store.counted["d", "limits.requests.admitted"] == 1


async def test_at_the_end_all_is_added(counts, store, lost):
    counts.count("acme", "requests", "admitted")
    await counts.close()
    assert (store.counted.total(), lost.total) == (1, 0)


async def test_what_is_lost_at_the_end_is_told(counts, store, lost):
    store.away = True
    counts.count("acme", "requests", "admitted")
    with pytest.raises(StoreError):
        await counts.flush()
    for _ in range(2):
        counts.count("beta", "requests", "denied")
    with capture_logs() as logs:
        await counts.close()
    assert lost.total == 3
    assert [(line["event"], line["counts"]) for line in logs] == [("usage.lost", 3)]


async def test_beside_the_requests_they_are_added_as_soon_as_the_store_is_back(
    counts, store, monkeypatch
):
    monkeypatch.setattr(kept, "INTERVAL", 0.001)
    running = asyncio.create_task(counts.run())
    store.away = True
    counts.count("acme", "requests", "admitted")
    for _ in range(3):
        await store.asked.acquire()
    store.away = False
    await store.added.wait()
    store.added.clear()
    counts.count("acme", "requests", "admitted")
    await store.added.wait()
    assert store.counted == {("acme", "limits.requests.admitted"): 2}
    running.cancel()
    await asyncio.wait([running])
