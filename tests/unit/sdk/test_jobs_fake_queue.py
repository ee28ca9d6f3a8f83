"""The fake sidecar's queues: what they keep, what they answer, which policies they take."""

from typing import Any

import httpx
import pytest

from partywall import ConfigurationError, Partywall
from partywall.testing import FakeSidecar


async def note(ctx: dict[str, Any]) -> None:
    """Does nothing."""


async def test_finished_jobs_are_kept_a_day_and_dead_ones_14_days() -> None:
    async with FakeSidecar() as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "note", _job_id="done")
        await pw.enqueue("acme", "nobodys", _job_id="dead")
        await sidecar.run_jobs([note])
        sidecar.advance(24 * 3600)
        assert [job.id for job in sidecar.jobs()] == ["dead"]
        sidecar.advance(13 * 24 * 3600)
        assert sidecar.jobs() == []
        await pw.enqueue("acme", "note", _job_id="done")


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        (5, "tiers.free.jobs: expected a table; got 5"),
        ({"max": 1}, "tiers.free.jobs: expected concurrency, max_queued, rate, queue; got 'max'"),
        ({"max_queued": -2}, "tiers.free.jobs.max_queued: expected a whole number from 0, or"),
        ({"max_queued": True}, "max_queued: expected a whole number from 0"),
    ],
)
def test_a_tiers_jobs_that_cannot_be_say_what_was_expected(jobs: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        FakeSidecar({"free": {"jobs": jobs}})


async def test_the_fakes_answers_are_those_of_the_contract() -> None:
    with FakeSidecar() as sidecar:
        async with httpx.AsyncClient(transport=sidecar._line, base_url="http://sidecar") as http:
            jobs = "/v1/tenants/acme/jobs"
            new = {"function": "f", "job_id": "one", "args": [1]}
            assert (await http.post(jobs, json=new)).status_code == 202
            again = await http.post(jobs, json=new)
            assert again.status_code == 200
            assert set(again.json()) == {
                *("job_id", "tenant", "function", "status", "priority", "attempts", "queued_at"),
                *("run_at", "started_at", "finished_at", "error", "result"),
            }
            for body, field in [
                ({}, "function"),
                ({"function": "f", "new": 1}, "new"),
                ({"function": "f", "priority": 10}, "priority"),
                ({"function": "f", "job_id": "purge"}, "job_id"),
                (
                    {"function": "f", "defer_by": 1, "defer_until": "2031-01-01T00:00:00Z"},
                    "defer_until",
                ),
                ({"function": "f", "defer_until": "2031-01-01T00:00:00"}, "defer_until"),
            ]:
                answer = await http.post(jobs, json=body)
                assert answer.status_code == 422
                assert [fault["field"] for fault in answer.json()["errors"]] == [field]
            for method, path, status in [
                ("GET", f"{jobs}?status=gone", 422),
                ("GET", f"{jobs}/two", 404),
                ("PUT", f"{jobs}/one", 404),
                ("GET", "/v1/tenants/a%20b/jobs", 422),
            ]:
                assert (await http.request(method, path)).status_code == status
            assert (await http.get(f"{jobs}?cursor=forgotten")).json()["jobs"] == []
