"""`partywall jobs` on a real sidecar and worker."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from partywall_service.cli import app, client
from partywall_workers import FairRedis, FairWorker, job
from partywall_workers.keys import queue_name
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

POLICY = """
[tiers.free]
weight = 2

[tiers.free.jobs]
concurrency = 3
max_queued = 4
"""


async def echo(_ctx: dict[str, Any], word: str) -> dict[str, str]:
    return {"said": word}


@job(max_tries=1)
async def breaks(_ctx: dict[str, Any]) -> None:
    raise ValueError("no such [bold]address[/]")


@pytest.fixture(scope="module")
def served(test_run: TestRun) -> Iterator[Sidecar]:
    """One sidecar for all; each test brings a tenant of its own."""
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest.fixture
def acme(served: Sidecar, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tenant on the sidecar that every command of this test talks to."""
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", served.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    monkeypatch.setenv("COLUMNS", "80")
    tenant = f"acme-{uuid.uuid4().hex[:8]}"
    ask("tenants", "set", tenant, "--tier", "free")
    return tenant


def partywall(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="partywall", catch_exceptions=False)


def ask(*arguments: str) -> Result:
    """A command that does what it is asked."""
    result = partywall(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def read(*arguments: str) -> Any:
    return json.loads(ask("jobs", *arguments, "--json").stdout)


def enqueue(served: Sidecar, tenant: str, function: str, *args: Any, **more: Any) -> None:
    answer = httpx.post(
        f"{served.url}/v1/tenants/{tenant}/jobs",
        json={"function": function, "args": args, **more},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    )
    assert answer.status_code == 202, answer.text


def work(served: Sidecar) -> None:
    """Runs one job that waits."""

    async def burst() -> None:
        redis = FairRedis.from_url(
            served.env["PARTYWALL_REDIS_URL"],
            queue_name=queue_name(served.env["PARTYWALL_KEY_PREFIX"]),
        )
        worker = FairWorker(
            [echo, breaks], redis_pool=redis, burst=True, max_burst_jobs=1, handle_signals=False
        )
        await worker.main()
        await worker.close()

    asyncio.run(burst())


def statuses(tenant: str, *options: str) -> dict[str, str]:
    return {one["job_id"]: one["status"] for one in read("list", tenant, *options)["jobs"]}


def test_a_jobs_life_from_the_queue_to_its_result(served: Sidecar, acme: str) -> None:
    enqueue(served, acme, "echo", "hello", job_id="greeting")
    enqueue(served, acme, "echo", "later", job_id="later", defer_by=600)
    assert statuses(acme) == {"later": "deferred", "greeting": "queued"}
    work(served)
    assert statuses(acme, "--status", "succeeded") == {"greeting": "succeeded"}
    table = ask("jobs", "show", acme, "greeting").stdout
    assert '{"said": "hello"}' in table
    assert " UTC" in table
    shown = read("show", acme, "greeting")
    assert (shown["status"], shown["attempts"], shown["priority"]) == ("succeeded", 1, 5)

    said = ask("jobs", "cancel", acme, "later")
    assert said.stderr == f"job later of {acme} is cancelled\n"
    again = partywall("jobs", "cancel", acme, "later")
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.count("\n") == 1


def test_a_dead_job_shows_where_it_died_and_is_revived(served: Sidecar, acme: str) -> None:
    enqueue(served, acme, "breaks", job_id="x")
    work(served)
    assert statuses(acme, "--status", "dead") == {"x": "dead"}
    row = ask("jobs", "list", acme).stdout.splitlines()[2]
    assert row.split()[:3] == ["x", "breaks", "dead"]
    assert "ValueError: no such [bold]address[/]" in row
    shown = ask("jobs", "show", acme, "x").stdout
    assert "Traceback (most recent call last)" in shown
    assert __file__.rpartition("/")[2] in shown
    assert ask("jobs", "retry", acme, "x").stderr == f"job x of {acme} is queued again\n"
    assert statuses(acme) == {"x": "queued"}
    ask("jobs", "cancel", acme, "x")
    assert partywall("jobs", "retry", acme, "x").exit_code == 1


def test_a_paused_queue_fills_and_is_purged(served: Sidecar, acme: str) -> None:
    assert ask("jobs", "pause", acme).stderr.startswith(f"{acme} is paused; ")
    for n in range(4):
        enqueue(served, acme, "echo", n, job_id=f"n{n}")
    assert set(statuses(acme).values()) == {"queued"}
    shown = ask("jobs", "top", "--once", "--interval", "0.05").stdout.splitlines()
    (row,) = (line.split() for line in shown if line.startswith(acme))
    assert row[:-3] == [acme, "free", "paused,", "full", "2", "4", "0", "0/3"]
    assert row[-1] == "0.0"
    assert ask("jobs", "purge", acme, "--yes").stderr == f"4 waiting jobs of {acme} are cancelled\n"
    assert set(statuses(acme).values()) == {"cancelled"}
    assert ask("jobs", "resume", acme).stderr == f"{acme} is not paused\n"
    assert read("resume", acme) == {"tenant": acme, "paused": False, "purged": 0}


def test_a_list_has_every_page(served: Sidecar, acme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    for n in range(4):
        enqueue(served, acme, "echo", n, job_id=f"n{n}")
    assert list(statuses(acme)) == ["n3", "n2", "n1", "n0"]
    cut = ask("jobs", "list", acme, "--limit", "3")
    assert len(cut.stdout.splitlines()) == 2 + 3
    assert "there are older ones" in cut.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "nobody"), "nobody"),
        (("show", "nobody", "x"), "nobody"),
        (("pause", "nobody"), "nobody"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_who_is_unknown_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = partywall("jobs", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unknown_job_is_told(acme: str) -> None:
    result = partywall("jobs", "show", acme, "none")
    assert (result.exit_code, result.stderr) == (1, f"tenant {acme!r} has no job 'none'\n")
