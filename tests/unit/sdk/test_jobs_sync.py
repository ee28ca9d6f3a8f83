"""Jobs by the synchronous client: the same, and nothing to await."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from partywall import (
    Conflict,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    QueueState,
    SyncJob,
    SyncPartywall,
    UnknownJob,
)
from partywall.testing import FakeSidecar


async def double(ctx: dict[str, Any], number: int) -> int:
    return 2 * number


def test_the_synchronous_client_does_all_of_it_without_await() -> None:
    with FakeSidecar() as sidecar, SyncPartywall() as pw:
        job = pw.enqueue("acme", "double", number=21, _job_id="one", _priority=1)
        assert isinstance(job, SyncJob)
        assert repr(job) == "<SyncJob 'one' of 'acme'>"
        assert (job.status(), job.info().priority) == ("queued", 1)
        with pytest.raises(TimeoutError, match="queued"):
            job.result(timeout=0.05)
        asyncio.run(sidecar.run_jobs([double]))
        assert job.result(timeout=30) == 42
        assert pw.job("acme", "one").result() == 42
        assert pw.get_job("acme", "one") == job.info()
        with pytest.raises(Conflict):
            job.cancel()
        with pytest.raises(Conflict):
            pw.retry_job("acme", "one")


def test_a_synchronous_job_is_cancelled_revived_and_missed() -> None:
    with FakeSidecar() as sidecar, SyncPartywall() as pw:
        job = pw.enqueue("acme", "double", "no number", {})
        asyncio.run(sidecar.run_jobs([double], max_tries=1))
        with pytest.raises(JobFailed, match=r"^TypeError: "):
            job.result()
        assert job.retry().status == "queued"
        assert job.cancel().status == "cancelled"
        assert pw.cancel_job("acme", job.id).status == "cancelled"
        with pytest.raises(JobCancelled):
            job.result(timeout=1)
        with pytest.raises(UnknownJob):
            pw.job("acme", "other").status()


def test_synchronous_lists_and_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywall.jobs.methods.PAGE_SIZE", 2)
    with FakeSidecar(), SyncPartywall() as pw:
        ids = [pw.enqueue("acme", "double", number).id for number in range(5)]
        assert [info.id for info in pw.list_jobs("acme")] == ids[::-1]
        assert list(pw.list_jobs("acme", "dead")) == []
        assert pw.pause_jobs("acme") == QueueState("acme", True, 0)
        assert pw.purge_jobs("acme") == QueueState("acme", True, 5)
        assert pw.resume_jobs("acme") == QueueState("acme", False, 0)


def test_a_thread_that_waits_for_a_result_does_not_keep_the_client_from_closing() -> None:
    with FakeSidecar() as sidecar:
        pw = SyncPartywall()
        job = pw.enqueue("acme", "double", 21)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(job.result)
            pw.close()
            asyncio.run(sidecar.run_jobs([double]))
            assert waiting.result(timeout=60) == 42
        pw.close()


def test_a_handle_is_made_without_a_request_and_its_id_is_looked_at() -> None:
    pw = SyncPartywall("http://127.0.0.1:1", "t")
    assert pw.job("acme", "one").id == "one"
    with pytest.raises(InvalidRequest, match=r"^job_id: "):
        pw.job("acme", "a b")
