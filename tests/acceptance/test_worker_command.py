"""`partywall worker`, `python -m partywall_workers` and `serve --with-worker`, as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import redis

from tests.acceptance.asking import fresh_tenant
from tests.conftest import SidecarFactory
from tests.support.processes import eventually, serving_in
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, START_SECONDS, STOP_SECONDS, Sidecar

POLICY = """
[tiers.free.quotas]
users = 5

[tiers.apart.jobs]
queue = "dedicated"
"""

JOBS = """
import asyncio, logging, os
import structlog
from partywall_workers import FairWorkerSettings

async def say(ctx, word):
    logging.getLogger("shop").info("said %s", word)
    structlog.get_logger().info("said", word=word)
    return word

async def linger(ctx):
    print("lingering", flush=True)
    await asyncio.sleep(0.5)
    return "done"

class Settings(FairWorkerSettings):
    functions = [say, linger]

class Nowhere(FairWorkerSettings):
    functions = ["nope.nothing"]

async def fails(ctx):
    raise OSError("no such database")

class Failing(FairWorkerSettings):
    functions = [say]
    on_startup = fails
"""

PARTYWALL = (sys.executable, "-m", "partywall_service", "worker")
BARE = (sys.executable, "-m", "partywall_workers")


@pytest.fixture(scope="module")
def served(test_run: TestRun) -> Iterator[Sidecar]:
    """One sidecar for all tests of workers' own; each brings a tenant."""
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest.fixture(scope="module")
def shop(served: Sidecar) -> Path:
    """Where a host app's jobs are."""
    (served.directory / "shop.py").write_text(JOBS)
    return served.directory


class Worker:
    """One worker process.

    Attributes:
        process: it; a test may send it any signal.
    """

    def __init__(self, command: Sequence[str], directory: Path, env: dict[str, str]) -> None:
        self._log = directory / f"worker-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, text: str) -> None:
        """Wait until it says so."""
        eventually(lambda: text in self.log or self.process.poll() is not None, seconds=60)
        assert text in self.log, self.log

    def ended(self) -> int:
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.ended()


def start(served: Sidecar, *arguments: str, command: Sequence[str] = PARTYWALL, **env: str) -> Any:
    return closing(Worker([*command, *arguments], served.directory, served.env | env))


def ask(served: Sidecar, method: str, path: str, **body: Any) -> Any:
    answer = httpx.request(
        method,
        f"{served.url}/v1/tenants/{path}",
        json=body or None,
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        timeout=30,
    )
    assert answer.is_success, answer.text
    return answer.json()


def tenant_of(served: Sidecar, tier: str = "free") -> str:
    tenant = fresh_tenant()
    ask(served, "PUT", tenant, tier=tier)
    return tenant


def status(served: Sidecar, tenant: str, job_id: str) -> str:
    return str(ask(served, "GET", f"{tenant}/jobs/{job_id}")["status"])


def test_a_host_apps_jobs_run_and_their_log_says_whose_they_are(
    served: Sidecar, shop: Path
) -> None:
    acme = tenant_of(served)
    ask(served, "POST", f"{acme}/jobs", function="say", args=["hello"], job_id="a")
    with start(served, "shop.Settings") as worker:
        eventually(lambda: status(served, acme, "a") == "succeeded")
        ask(served, "POST", f"{acme}/jobs", function="linger", job_id="b")
        worker.until("lingering")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == 0
        lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    assert status(served, acme, "b") == "succeeded"  # it was let end
    said = [line for line in lines if line["event"] in ("said", "said hello")]
    assert [(line["tenant"], line["job_id"]) for line in said] == [(acme, "a")] * 2
    assert lines[0]["tenant"] is None


def test_a_worker_serves_the_queues_it_is_told(served: Sidecar, shop: Path) -> None:
    apart, acme = tenant_of(served, "apart"), tenant_of(served)
    for tenant in (apart, acme):
        ask(served, "POST", f"{tenant}/jobs", function="say", args=["x"], job_id="a")
    with start(served, "shop.Settings", "--queue", "dedicated", "--burst") as worker:
        assert worker.ended() == 0, worker.log
    assert status(served, apart, "a") == "succeeded"
    assert status(served, acme, "a") == "queued"
    with start(served, "shop.Settings", "--burst", command=BARE) as worker:
        assert worker.ended() == 0, worker.log
        assert f"tenant={acme} job_id=a said x" in worker.log
    assert status(served, acme, "a") == "succeeded"


def test_a_hook_that_fails_at_the_start_is_logged_and_ends_it(served: Sidecar, shop: Path) -> None:
    with start(served, "shop.Failing") as worker:
        assert worker.ended() == 1
        *_, sentence = worker.log.splitlines()
        assert "OSError: no such database" in sentence
        logged = next(line for line in worker.log.splitlines() if '"the worker ended"' in line)
    assert "in fails" in json.loads(logged)["exception"]


def test_a_setting_that_cannot_be_is_one_sentence(served: Sidecar, shop: Path) -> None:
    with start(served, "shop.Nowhere") as worker:
        assert worker.ended() == 1
    assert worker.log.count("\n") == 1
    assert "shop.Nowhere: functions: expected coroutine functions, or paths of some" in worker.log
    assert "got 'nope.nothing' (ModuleNotFoundError: No module named 'nope')" in worker.log
    with start(served, "shop.Settings", "--queue", "bad*name", command=BARE) as worker:
        assert worker.ended() == 1
    assert worker.log.startswith("shop.Settings: queues: expected names of 1 to 64 letters")
    assert worker.log.endswith("; got 'bad*name'\n")


def test_without_a_running_sidecar_of_the_directory_it_says_what_to_start(
    served: Sidecar, server_dir: Path
) -> None:
    env = {name: it for name, it in served.env.items() if not name.startswith("PARTYWALL")}
    env["PARTYWALL_DATA_DIR"] = str(server_dir)
    with closing(Worker(PARTYWALL, server_dir, env)) as worker:
        assert worker.ended() == 1
        assert "start `partywall serve` first, or set PARTYWALL_REDIS_URL" in worker.log
        assert worker.log.count("\n") == 1
    assert not (server_dir / "valkey").exists()


def test_maintenance_gives_back_what_expired_though_no_sidecar_runs(
    sidecar: SidecarFactory, database_url: str, valkey_url: str, key_prefix: str
) -> None:
    one = sidecar(quotas=POLICY)
    acme = tenant_of(one)
    ask(one, "POST", f"{acme}/quotas/reserve", items={"users": 2}, ttl=1)
    one.stop()
    with psycopg.connect(database_url, autocommit=True) as database:

        def held() -> int:
            query = "SELECT count(*) FROM quota_reservations WHERE status = 'held'"
            row = database.execute(query).fetchone()
            return int(row[0]) if row else -1

        assert held() == 1
        with start(one) as worker, redis.Redis.from_url(valkey_url) as client:
            eventually(lambda: held() == 0)
            eventually(lambda: client.exists(f"{key_prefix}:jobs:maintained"))
            worker.process.send_signal(signal.SIGINT)
            assert worker.ended() == 0
        assert "exception" not in worker.log


def workers_of(one: Sidecar) -> list[psutil.Process]:
    """The maintenance workers that it started."""
    return [
        child
        for child in psutil.Process(one.process.pid).children()
        if child.cmdline()[1:4] == ["-m", "partywall_service", "worker"]
    ]


def test_a_ctrl_c_stops_the_worker_with_all_that_serve_started(sidecar: SidecarFactory) -> None:
    one = sidecar(embedded=True, arguments=["--with-worker"])
    eventually(lambda: '"Starting worker' in one.log, seconds=START_SECONDS)
    (worker,) = workers_of(one)
    os.killpg(one.process.pid, signal.SIGINT)  # what a terminal does
    assert one.process.wait(STOP_SECONDS) == 0
    assert not worker.is_running()
    assert serving_in(one.directory) == {}
    assert "Traceback" not in one.log
    assert "worker.died" not in one.log


def test_a_job_is_taken_before_an_apps_first_worker_runs_beside_that_of_serve(
    sidecar: SidecarFactory, valkey_url: str, key_prefix: str
) -> None:
    one = sidecar(quotas=POLICY, arguments=["--with-worker"])
    with redis.Redis.from_url(valkey_url) as client:
        # It says that it lives, and what it can, at once.
        eventually(lambda: client.exists(f"{key_prefix}:jobs:workers:_system"), seconds=60)
    acme = tenant_of(one)
    assert ask(one, "POST", f"{acme}/jobs", function="say", args=["hello"])["status"] == "queued"


def test_a_dead_worker_is_started_again_and_none_outlives_a_killed_sidecar(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar(arguments=["--with-worker"])
    eventually(lambda: '"Starting worker' in one.log, seconds=START_SECONDS)
    (worker,) = workers_of(one)
    worker.kill()
    eventually(lambda: one.log.count('"Starting worker') == 2, seconds=START_SECONDS)
    assert '"worker.died"' in one.log
    (again,) = workers_of(one)
    one.kill()
    eventually(lambda: not again.is_running(), psutil.NoSuchProcess)
    assert "Traceback" not in one.log


def test_serve_with_a_worker_refuses_a_cluster_that_no_worker_can_use(
    sidecar: SidecarFactory,
) -> None:
    env = {"PARTYWALL_REDIS_URL": "redis+cluster://127.0.0.1:1"}
    said = sidecar(env=env, arguments=["--with-worker"], start=False).refusal()
    assert "PARTYWALL_JOBS_REDIS_URL must name one" in said
    assert said.count("\n") == 1
