"""Leases and releases of a worker whose Redis does not answer."""

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisGone

from partywall_service.embedded import ValkeyServer
from partywall_workers import FairRedis, FairWorker, worker
from partywall_workers import releases as told
from partywall_workers.leases import Leases, Reason
from partywall_workers.releases import Releases
from partywall_workers.scripts import Claimed, Outcome

CLAIMED = Claimed("acme", "it", b"", 1, 1, 0, False, 0, False, False, None, b"[]")


class Scripts:
    """Answers after so many failures; refuses what names `bad`."""

    def __init__(self, failures: float = 0, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or RedisGone("gone")
        self.told: list[list[str]] = []
        self.asked = 0

    def _fail(self) -> None:
        self.asked += 1
        if self.failures > 0:
            self.failures -= 1
            raise self.error

    async def renew(self, lease: int, leases: Iterable[Any]) -> list[str]:
        await asyncio.sleep(0)
        self._fail()
        return ["renewed" for _ in leases]

    async def release(self, outcomes: Iterable[Outcome]) -> list[bool]:
        refs = [one.ref for one in outcomes]
        await asyncio.sleep(0)
        self._fail()
        if any("bad" in ref for ref in refs):
            raise ValueError("cannot be told")
        self.told.append(refs)
        return [True] * len(refs)


def leases(scripts: Scripts, seconds: float) -> Leases:
    return Leases(scripts, seconds)  # type: ignore[arg-type] # it stands in for them


def releases(scripts: Scripts) -> Releases:
    return Releases(scripts)  # type: ignore[arg-type] # it stands in for them


async def test_a_lease_is_renewed_as_soon_as_redis_answers_again() -> None:
    scripts = Scripts(failures=4)
    lost: list[Reason] = []
    kept = leases(scripts, 60)
    kept.seconds = 0.6  # so that it asks again in a hundredth of a second
    kept.hold(CLAIMED, time.monotonic() + 3600, lost.append)
    await kept.renew()
    assert scripts.asked == 5
    assert lost == []


async def test_a_job_whose_lease_could_not_be_renewed_in_time_is_cancelled() -> None:
    scripts, lost = Scripts(failures=float("inf")), asyncio.Queue[Reason]()
    kept = leases(scripts, 0.3)
    kept.hold(CLAIMED, time.monotonic(), lost.put_nowait)
    renewing = asyncio.create_task(kept.renew())
    assert await lost.get() == "lost"
    assert not renewing.done()
    kept.let_go(CLAIMED)
    await renewing


async def test_a_redis_that_hangs_is_asked_again() -> None:
    class Hanging(Scripts):
        async def renew(self, lease: int, leases: Iterable[Any]) -> list[str]:
            self.asked += 1
            if self.asked < 3:
                await asyncio.Event().wait()
            return ["renewed" for _ in leases]

    scripts = Hanging()
    kept = leases(scripts, 0.3)
    kept.hold(CLAIMED, time.monotonic() + 3600, lambda reason: None)
    await kept.renew()
    assert scripts.asked == 3


async def test_an_outcome_is_told_when_redis_answers_again() -> None:
    scripts = Scripts(failures=1)
    assert await releases(scripts).release(
        Outcome("acme:it", 1, "succeeded"), until=time.monotonic() + 60
    )
    assert scripts.told == [["acme:it"]]


async def test_an_outcome_is_given_up_once_it_is_ours_no_more() -> None:
    scripts = Scripts(failures=float("inf"))
    teller = releases(scripts)
    assert not await teller.release(Outcome("acme:it", 1, "dead"), until=time.monotonic() - 1)
    scripts.failures = 0
    assert await teller.release(Outcome("acme:on", 2, "dead"), until=time.monotonic() + 60)


async def test_outcomes_that_gather_go_together_and_one_that_cannot_be_told_holds_up_no_other() -> (
    None
):
    scripts = Scripts()
    teller = releases(scripts)
    until = time.monotonic() + 60
    refs = ["acme:first", "acme:a", "acme:bad", "acme:b"]
    answers = await asyncio.gather(
        *[teller.release(Outcome(ref, 1, "succeeded"), until=until) for ref in refs],
        return_exceptions=True,
    )
    assert [answers[0], answers[1], answers[3]] == [True, True, True]
    with pytest.raises(ValueError, match="cannot be told"):
        raise answers[2]  # type: ignore[misc] # it is what was raised there
    assert await teller.release(Outcome("acme:later", 1, "succeeded"), until=until)
    assert [ref for batch in scripts.told for ref in batch] == [
        "acme:first",
        "acme:a",
        "acme:b",
        "acme:later",
    ]


@pytest.mark.parametrize("busy", [False, True])
async def test_a_worker_ends_when_told_to_though_its_redis_hangs(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    for of in (worker, told):
        monkeypatch.setattr(of, "PATIENCE", 0.2)
    running = asyncio.Event()

    async def endless(ctx: dict[str, Any]) -> None:
        running.set()
        await asyncio.Event().wait()

    redis = FairRedis.from_url(own_valkey.url)
    one = FairWorker(
        [endless], redis_pool=redis, handle_signals=False, lease=1, job_completion_wait=0
    )
    if busy:
        await redis.enqueue_job(endless, _tenant="acme")
    ended = asyncio.create_task(one.async_run())
    if busy:
        await running.wait()
    assert own_valkey.pid is not None
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        one.handle_sig(signal.SIGTERM)
        await asyncio.wait_for(ended, 30)
        await asyncio.wait_for(one.close(), 30)
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
