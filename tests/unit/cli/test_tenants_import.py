"""`partywall tenants import` where no sidecar answers as it should (with one: acceptance tests)."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.cli.conftest import Partywall

Reply = tuple[int, dict[str, str], object]


class _Fake(ThreadingHTTPServer):
    """Answers as `reply(tenant, count)` says; `count` is of this tenant's requests, from 1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[str, int], Reply] = created
        self.asked: dict[str, int] = {}
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Nothing to the terminal when a client that was told to end is gone."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Fake

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        tenant = self.path.rpartition("/")[2]
        with self.server.lock:
            count = self.server.asked[tenant] = self.server.asked.get(tenant, 0) + 1
        status, headers, body = self.server.reply(tenant, count)
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


def created(tenant: str, _: int) -> Reply:
    return 201, {}, {"tenant": tenant}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Fake]:
    with _Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PARTYWALL_SIDECAR_URL", server.url)
        monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
        yield server
        server.shutdown()
        thread.join()


def tenants(count: int) -> str:
    return "".join(["tenant,tier\n", *(f"t{n},free\n" for n in range(count))])


class Said(NamedTuple):
    code: int
    stdout: str
    stderr: str


def imported(partywall: Partywall, count: int) -> Said:
    result = partywall("tenants", "import", "-", stdin=tenants(count))
    return Said(result.exit_code, result.stdout, result.stderr)


def test_nothing_is_sent_of_a_file_with_a_fault(partywall: Partywall, fake: _Fake) -> None:
    result = partywall("tenants", "import", "-", stdin=f"{tenants(50)}!,free\n")
    assert (result.exit_code, result.stdout, fake.asked) == (1, "", {})


def test_a_line_is_tried_again_while_the_sidecar_cannot_take_it(
    partywall: Partywall, fake: _Fake
) -> None:
    def reply(tenant: str, count: int) -> Reply:
        if tenant == "t7" and count < 4:
            return 503, {"Retry-After": "0"}, {"detail": "not now"}
        return created(tenant, count)

    fake.reply = reply
    assert imported(partywall, 40) == (0, "created 40, updated 0, failed 0\n", "")
    assert (fake.asked["t7"], sum(fake.asked.values())) == (4, 43)


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {}])
def test_a_sidecar_that_never_can_ends_the_import(
    partywall: Partywall, fake: _Fake, headers: dict[str, str]
) -> None:
    fake.reply = lambda _tenant, _count: (503, headers, {"detail": "the database is away"})
    code, stdout, stderr = imported(partywall, 500)
    assert (code, stdout) == (1, "created 0, updated 0, failed 0\n")
    assert (
        stderr == "the database is away; 0 of 500 tenants were imported, and it may be run again\n"
    )
    assert len(fake.asked) < 100


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"detail": "x"}, "does not take the token from PARTYWALL_TOKEN; "),
        (403, {"detail": "a token of scope admin is needed"}, "a token of scope admin is needed; "),
        (500, {"detail": "an unforeseen fault"}, "an unforeseen fault; "),
        (404, "nothing here", "answered 404 and no problem+json; is it a Partywall sidecar?; "),
        (200, ["?"], "answered something else than a Partywall sidecar; "),
        (200, {"it": "works"}, "answered something else than a Partywall sidecar; "),
    ],
)
def test_an_answer_that_every_line_would_get_ends_the_import(
    partywall: Partywall, fake: _Fake, status: int, body: object, said: str
) -> None:
    fake.reply = lambda _tenant, _count: (status, {}, body)
    code, stdout, stderr = imported(partywall, 500)
    assert (code, stdout) == (1, "created 0, updated 0, failed 0\n")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert len(fake.asked) < 100


def test_an_unreachable_sidecar_is_one_sentence(
    partywall: Partywall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PARTYWALL_PORT", str(taken.getsockname()[1]))
        code, stdout, stderr = imported(partywall, 100)
    assert (code, stdout) == (1, "created 0, updated 0, failed 0\n")
    assert stderr.startswith("no sidecar answers at ")
    assert stderr.count("\n") == 1


def test_what_was_refused_before_the_end_is_told_too(partywall: Partywall, fake: _Fake) -> None:
    refused = threading.Event()

    def reply(tenant: str, count: int) -> Reply:
        if tenant == "t0":
            return 422, {}, {"detail": "tier: expected one of pro"}
        if tenant == "t32":  # the first that is sent after one of the first 32 was answered
            refused.set()
        assert refused.wait(60)
        return 401, {}, {"detail": "x"}

    fake.reply = reply
    code, stdout, stderr = imported(partywall, 33)
    assert (code, stdout) == (1, "created 0, updated 0, failed 1\n")
    first, last = stderr.splitlines()
    assert first == "line 2: t0: tier: expected one of pro"
    assert "does not take the token" in last


def test_a_domain_that_another_line_gives_free_is_taken_then(
    partywall: Partywall, fake: _Fake
) -> None:
    def reply(tenant: str, count: int) -> Reply:
        if tenant == "t1" and count == 1:
            return 409, {}, {"detail": "t0 has it"}
        if tenant == "t2":
            return 409, {}, {"detail": "domain 'x' is\nanother's"}
        return created(tenant, count)

    fake.reply = reply
    code, stdout, stderr = imported(partywall, 5)
    assert (code, stdout) == (1, "created 4, updated 0, failed 1\n")
    assert stderr == "line 4: t2: domain 'x' is another's\n"


def test_ctrl_c_says_how_many_were_done(fake: _Fake) -> None:
    held, release = threading.Event(), threading.Event()

    def reply(tenant: str, count: int) -> Reply:
        if tenant != "t0":
            if tenant == "t32":  # so the answer for t0 has been counted
                held.set()
            release.wait(60)
        return created(tenant, count)

    fake.reply = reply
    file = Path("tenants.csv")
    file.write_text(tenants(100))
    command = [sys.executable, "-m", "partywall_service", "tenants", "import", str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert held.wait(60)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            release.set()
            process.kill()
    assert (process.returncode, stdout) == (130, "created 1, updated 0, failed 0\n")
    assert re.fullmatch(r"stopped; 1 of 100 tenants were imported.*\n", stderr)
