"""`partywall serve` with nothing given: its own Valkey and PostgreSQL, and nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import SidecarFactory
from tests.support.processes import eventually, server_processes, serving_in
from tests.support.run import TestRun
from tests.support.sidecar import QUOTAS, START_SECONDS, Sidecar

ROOT = Path(__file__).parents[2]
BOTH = {"valkey-server": 1, "postgres": 1}


def put(one: Sidecar, tenant: str) -> None:
    answer = httpx.put(
        f"{one.url}/v1/tenants/{tenant}",
        json={"tier": "pro"},
        headers={"Authorization": f"Bearer {one.admin_token}"},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text


def check(one: Sidecar, tenant: str) -> dict[str, object]:
    answer = httpx.post(
        f"{one.url}/v1/check",
        json={"tenant": tenant},
        headers={"Authorization": f"Bearer {one.admin_token}"},
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_lost_and_nothing_left_running_between_starts(
    sidecar: SidecarFactory, how: signal.Signals
) -> None:
    one = sidecar(embedded=True)
    put(one, "acme")
    before = check(one, "acme")
    assert one.stop(how) == 0
    assert "Traceback" not in one.log
    assert serving_in(one.directory) == {}
    one.start()
    after = check(one, "acme")
    assert after["tier"] == "pro"
    assert after["remaining"] == before["remaining"] - 1  # type: ignore[operator]


def test_a_killed_sidecar_starts_again_on_what_it_left(sidecar: SidecarFactory) -> None:
    one = sidecar(embedded=True)
    put(one, "acme")
    one.kill()
    assert serving_in(one.directory) == BOTH
    one.start()
    assert serving_in(one.directory) == BOTH
    assert check(one, "acme")["tier"] == "pro"
    one.stop()
    assert serving_in(one.directory) == {}


@pytest.mark.parametrize("program", ["valkey-server", "postgres"])
def test_a_killed_server_comes_back_under_a_running_sidecar(
    sidecar: SidecarFactory, program: str
) -> None:
    one = sidecar(embedded=True)
    put(one, "before")
    victims = [it for it in server_processes(one.directory) if it.name() == program]
    head = min(victims, key=lambda it: it.create_time())
    head.kill()
    eventually(lambda: serving_in(one.directory).get(program) == 1 and not head.is_running())
    eventually(lambda: check(one, "before")["degraded"] is False, AssertionError)
    eventually(lambda: put(one, "after") is None, AssertionError, httpx.HTTPError)
    assert check(one, "before")["tier"] == "pro"
    assert check(one, "after")["tier"] == "pro"


def test_a_second_sidecar_on_one_data_directory_is_refused(sidecar: SidecarFactory) -> None:
    first = sidecar(embedded=True)
    data = first.env["PARTYWALL_DATA_DIR"]
    said = sidecar(embedded=True, env={"PARTYWALL_DATA_DIR": data}, start=False).refusal()
    assert data in said
    assert f"process {first.process.pid}" in said
    assert check(first, "acme")["allowed"] is True


def test_an_interrupt_during_the_first_start_leaves_nothing(sidecar: SidecarFactory) -> None:
    one = sidecar(embedded=True, start=False)
    one.start(ready=False)
    eventually(lambda: (one.directory / "data" / "valkey").exists())
    assert one.stop(signal.SIGINT) == 0
    assert "Traceback" not in one.log
    assert serving_in(one.directory) == {}
    one.start()


@pytest.fixture
def house(test_run: TestRun) -> Path:
    """A clone in which `make` finds everything installed: the wrapper runs what is under test."""
    directory = test_run.fresh_dir("house")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, directory / name)
    (directory / "quotas.toml").write_text(QUOTAS)
    binaries = directory / ".venv" / "bin"
    binaries.mkdir(parents=True)
    command = binaries / "partywall"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m partywall_service "$@"\n')
    command.chmod(0o755)
    (directory / ".venv" / "installed-all").touch()
    return directory


@pytest.fixture
def made(house: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """`make run` in it, as from a terminal: in a process group of its own."""
    env = {
        name: it for name, it in os.environ.items() if not name.startswith(("PARTYWALL", "MAKE"))
    }
    with (house / "run.log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "run", "ARGS=--port 0"],
            cwd=house,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_make_run_and_ctrl_c(house: Path, made: "subprocess.Popen[bytes]") -> None:
    log = house / "run.log"
    eventually(lambda: "Partywall is up" in log.read_text(), seconds=START_SECONDS)
    curl = next(line for line in log.read_text().splitlines() if line.strip().startswith("curl"))
    said = subprocess.run(["sh", "-c", curl], cwd=house, capture_output=True, text=True, check=True)
    assert '"allowed"' in said.stdout
    os.killpg(made.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    made.wait(30)
    assert "Traceback" not in log.read_text()
    assert serving_in(house) == {}
