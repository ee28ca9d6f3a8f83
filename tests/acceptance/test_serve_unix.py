"""`partywall serve --host unix:…`: the sidecar behind a Unix socket."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.acceptance.test_serve import CHECK, sentences
from tests.conftest import SidecarFactory
from tests.support.processes import eventually
from tests.support.sidecar import START_SECONDS, Sidecar


@pytest.fixture
def path(server_dir: Path) -> Path:
    return server_dir / "partywall.sock"


@pytest.fixture
def at_socket(sidecar: SidecarFactory, path: Path) -> Sidecar:
    return sidecar(env={"PARTYWALL_HOST": f"unix:{path}"}, start=False)


def client(one: Sidecar, path: Path) -> httpx.Client:
    """A client of one connection, through the socket."""
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)),
        base_url="http://partywall",
        headers={"Authorization": f"Bearer {one.admin_token}"},
        timeout=START_SECONDS,
    )


def start(one: Sidecar) -> None:
    """Start it, or start it again; return when it says that it is up."""
    before = one.log.count("Partywall is up")
    one.start(ready=False)

    def up() -> bool:
        assert one.process.poll() is None, one.log
        return one.log.count("Partywall is up") > before

    eventually(up, seconds=START_SECONDS)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_answers_at_a_socket_and_removes_it(
    sidecar: SidecarFactory, path: Path, workers: str
) -> None:
    one = sidecar(arguments=["--host", f"unix:{path}", "--workers", workers], start=False)
    start(one)
    for _ in range(4):
        with client(one, path) as caller:
            answer = caller.post("/v1/check", json=CHECK)
        assert answer.json()["allowed"] is True
    assert f"Partywall is up at unix://{path}\n" in one.log
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_uid == os.getuid()
    assert one.stop() == 0
    assert not path.exists()
    assert "Traceback" not in one.log


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_it_removes_the_socket_whatever_told_it_to_stop(
    at_socket: Sidecar, path: Path, how: signal.Signals
) -> None:
    start(at_socket)
    assert at_socket.stop(how) == 0
    assert not path.exists()


def test_the_printed_curl_line_works(at_socket: Sidecar, path: Path) -> None:
    start(at_socket)
    curl = next(line for line in at_socket.log.splitlines() if line.strip().startswith("curl"))
    assert f"--unix-socket {path}" in curl
    env = {**os.environ, **at_socket.env}
    said = subprocess.run(["sh", "-c", curl], env=env, capture_output=True, text=True, check=True)
    assert '"allowed"' in said.stdout


def test_the_command_line_finds_it_there(at_socket: Sidecar, path: Path) -> None:
    start(at_socket)
    env = {**os.environ, **at_socket.env, "PARTYWALL_SIDECAR_URL": f"unix://{path}"}
    partywall = [sys.executable, "-m", "partywall_service"]
    tokens = [*partywall, "tokens", "create", "--scope", "host", "--name", "shop"]
    token = subprocess.run(tokens, env=env, capture_output=True, text=True, check=True)
    assert token.stdout.startswith("pw_")
    file = at_socket.directory / "tenants.csv"
    file.write_text("tenant,tier\nacme,pro\n")
    tenants = [*partywall, "tenants", "import", str(file)]
    subprocess.run(tenants, env=env, capture_output=True, check=True)
    with client(at_socket, path) as caller:
        assert caller.get("/v1/tenants/acme").json()["tier"] == "pro"


def test_metrics_need_no_token_there(at_socket: Sidecar, path: Path) -> None:
    """Whoever may open the socket is on this machine."""
    start(at_socket)
    with client(at_socket, path) as caller:
        assert caller.get("/metrics", headers={"Authorization": ""}).status_code == 200


def test_what_a_killed_one_left_is_replaced(at_socket: Sidecar, path: Path) -> None:
    start(at_socket)
    at_socket.kill()
    assert path.exists()
    start(at_socket)
    assert at_socket.stop() == 0
    assert not path.exists()


def test_a_socket_that_is_in_use_is_refused_and_left_alone(
    sidecar: SidecarFactory, at_socket: Sidecar, path: Path
) -> None:
    start(at_socket)
    (sentence,) = sentences(
        sidecar(env={"PARTYWALL_HOST": f"unix://{path}"}, start=False).refusal()
    )
    assert str(path) in sentence
    assert "in use" in sentence
    with client(at_socket, path) as caller:
        assert caller.post("/v1/check", json=CHECK).status_code == 200


def test_a_socket_whose_queue_is_full_is_in_use(at_socket: Sidecar, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))  # and the queue of one is full
        (sentence,) = sentences(at_socket.refusal())
    assert "in use" in sentence


def test_a_file_that_is_no_socket_is_refused_and_left_alone(at_socket: Sidecar, path: Path) -> None:
    path.write_text("precious")
    (sentence,) = sentences(at_socket.refusal())
    assert "no socket" in sentence
    assert path.read_text() == "precious"


def test_a_socket_that_somebody_else_put_there_since_is_not_removed(
    at_socket: Sidecar, path: Path
) -> None:
    start(at_socket)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert at_socket.stop() == 0
        assert path.exists()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:", "unix:/run/partywall.sock"),
        ("unix://run/partywall.sock", "unix:/run/partywall.sock"),
        ("unix:/no/such/place/partywall.sock", "/no/such/place"),
        (f"unix:/tmp/{'x' * 200}.sock", "too long"),
    ],
)
def test_what_can_be_no_socket_is_refused_in_a_sentence(
    sidecar: SidecarFactory, host: str, expected: str
) -> None:
    (sentence,) = sentences(sidecar(env={"PARTYWALL_HOST": host}, start=False).refusal())
    assert expected in sentence
