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
from typing import Any, NamedTuple

import pytest

from partywall_service.cli import tenants_send
from tests.unit.cli.conftest import Partywall

Reply = tuple[int, dict[str, str], object]


class _Fake(ThreadingHTTPServer):
    """Answers as `reply(tenants, count)` says; `count` is of the requests, from 1."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[list[str], int], Reply] = created
        self.asked: list[list[str]] = []
        self.paths: set[str] = set()

    def handle_error(self, *_: object) -> None:
        """Nothing to the terminal when a client that was told to end is gone."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tenants = [one["tenant"] for one in body]
        self.server.paths.add(self.path)
        self.server.asked.append(tenants)
        status, headers, answer = self.server.reply(tenants, len(self.server.asked))
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


def created(tenants: list[str], _: int) -> Reply:
    return 200, {}, {"created": len(tenants), "updated": 0, "unchanged": 0}


def refused(status: int, **said: str) -> Reply:
    """Faults by place, as `_3="…"`."""
    errors: list[Any] = [
        {"field": f"[{place.strip('_')}].domains", "reason": reason}
        for place, reason in said.items()
    ]
    return status, {}, {"detail": "nothing was changed", "errors": errors}


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


def imported(partywall: Partywall, count: int, *options: str) -> Said:
    result = partywall("tenants", "import", "-", *options, stdin=tenants(count))
    return Said(result.exit_code, result.stdout, result.stderr)


def test_nothing_is_sent_of_a_file_with_a_fault(partywall: Partywall, fake: _Fake) -> None:
    result = partywall("tenants", "import", "-", stdin=f"{tenants(50)}!,free\n")
    assert (result.exit_code, result.stdout, fake.asked) == (1, "", [])


def test_many_go_in_few_requests_none_of_them_large(
    partywall: Partywall, fake: _Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imported(partywall, 2500, "--status", "provisioning").code == 0
    assert [len(chunk) for chunk in fake.asked] == [1000, 1000, 500]
    assert fake.paths == {"/v1/tenants/import?new_status=provisioning"}
    fake.asked.clear()
    monkeypatch.setattr(
        tenants_send, "CHUNK_BYTES", 100
    )  # three of `{"tier":"free","tenant":"t7"}`
    assert imported(partywall, 7).stdout == "created 7, updated 0, unchanged 0, failed 0\n"
    assert [len(chunk) for chunk in fake.asked] == [3, 3, 1]


def test_a_request_is_tried_again_while_the_sidecar_cannot_take_it(
    partywall: Partywall, fake: _Fake
) -> None:
    def reply(tenants: list[str], count: int) -> Reply:
        if 1 < count < 5:
            return 503, {"Retry-After": "0"}, {"detail": "not now"}
        return created(tenants, count)

    fake.reply = reply
    assert imported(partywall, 1500) == (
        0,
        "created 1,500, updated 0, unchanged 0, failed 0\n",
        "",
    )
    assert [len(chunk) for chunk in fake.asked] == [1000, 500, 500, 500, 500]


@pytest.mark.parametrize("headers", [{"Retry-After": "0"}, {}])
def test_a_sidecar_that_never_can_ends_the_import(
    partywall: Partywall, fake: _Fake, headers: dict[str, str]
) -> None:
    fake.reply = lambda _tenants, _count: (503, headers, {"detail": "the database is away"})
    code, stdout, stderr = imported(partywall, 1500)
    assert (code, stdout) == (1, "created 0, updated 0, unchanged 0, failed 0\n")
    said = "the database is away; 0 of 1,500 tenants were imported, and it may be run again\n"
    assert stderr == said
    assert len(fake.asked) == (tenants_send.TRIES if headers else 1)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"detail": "x"}, "does not take the token from PARTYWALL_TOKEN; "),
        (403, {"detail": "a token of scope admin is needed"}, "a token of scope admin is needed; "),
        (422, {"detail": "new_status: expected …"}, "new_status: expected …; "),
        (422, {"detail": "x", "errors": [{"field": "body", "reason": "x"}]}, "x; "),
        (409, {"detail": "x", "errors": "nonsense"}, "x; "),
        (500, {"detail": "an unforeseen fault"}, "an unforeseen fault; "),
        (404, "nothing here", "answered 404 and no problem+json; is it a Partywall sidecar?; "),
        (200, ["?"], "answered something else than a Partywall sidecar; "),
        (200, {"it": "works"}, "answered something else than a Partywall sidecar; "),
    ],
)
def test_an_answer_that_every_line_would_get_ends_the_import(
    partywall: Partywall, fake: _Fake, status: int, body: object, said: str
) -> None:
    fake.reply = lambda _tenants, _count: (status, {}, body)
    code, stdout, stderr = imported(partywall, 1500)
    assert (code, stdout) == (1, "created 0, updated 0, unchanged 0, failed 0\n")
    assert said in stderr
    assert stderr.count("\n") == 1
    assert len(fake.asked) == 1


def test_an_unreachable_sidecar_is_one_sentence(
    partywall: Partywall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PARTYWALL_PORT", str(taken.getsockname()[1]))
        code, stdout, stderr = imported(partywall, 100)
    assert (code, stdout) == (1, "created 0, updated 0, unchanged 0, failed 0\n")
    assert stderr.startswith("no sidecar answers at ")
    assert stderr.count("\n") == 1


def test_a_line_that_is_refused_stops_no_other(partywall: Partywall, fake: _Fake) -> None:
    fake.reply = lambda tenants, count: (
        refused(422, _1="one", _3="two") if count == 1 else created(tenants, count)
    )
    code, stdout, stderr = imported(partywall, 5)
    assert (code, stdout) == (1, "created 3, updated 0, unchanged 0, failed 2\n")
    assert stderr == "line 3: t1: domains: one\nline 5: t3: domains: two\n"
    assert fake.asked[1] == ["t0", "t2", "t4"]


def test_what_was_refused_before_the_end_is_told_too(partywall: Partywall, fake: _Fake) -> None:
    fake.reply = lambda _tenants, count: (
        refused(422, _0="no") if count == 1 else (401, {}, {"detail": "x"})
    )
    code, stdout, stderr = imported(partywall, 33)
    assert (code, stdout) == (1, "created 0, updated 0, unchanged 0, failed 1\n")
    first, last = stderr.splitlines()
    assert first == "line 2: t0: domains: no"
    assert "does not take the token" in last


def test_a_domain_that_a_later_line_gives_free_is_taken_then(
    partywall: Partywall, fake: _Fake
) -> None:
    def reply(tenants: list[str], count: int) -> Reply:
        if count == 1:
            return refused(409, _1="another's", _2="another's")
        if "t2" in tenants:
            return refused(409, **{f"_{tenants.index('t2')}": "another's"})
        return created(tenants, count)

    fake.reply = reply
    code, stdout, stderr = imported(partywall, 1001)
    assert (code, stdout) == (1, "created 1,000, updated 0, unchanged 0, failed 1\n")
    assert stderr == "line 4: t2: domains: another's\n"
    assert [len(chunk) for chunk in fake.asked] == [1000, 998, 1, 2, 1, 1]


def test_ctrl_c_says_how_many_were_done(fake: _Fake) -> None:
    held, release = threading.Event(), threading.Event()

    def reply(tenants: list[str], count: int) -> Reply:
        if count == 2:  # so the answer for the first has been counted
            held.set()
            release.wait(60)
        return created(tenants, count)

    fake.reply = reply
    file = Path("tenants.csv")
    file.write_text(tenants(1500))
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
    assert process.returncode == 130
    assert stdout == "created 1,000, updated 0, unchanged 0, failed 0\n"
    assert re.fullmatch(r"stopped; 1,000 of 1,500 tenants were imported.*\n", stderr)
