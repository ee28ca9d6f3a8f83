"""`partywall tenants export` where a sidecar does not tell all (with one: acceptance tests)."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Partywall

BEGIN = b'{"kind":"begin","tenant":"acme"}\n'
# One line: what Unicode calls a line end may stand in a text.
TENANT = '{"kind":"tenant","name":"A\u2028cme\u0085"}\n'.encode()
END = b'{"kind":"end","lines":2}\n'
WHOLE = BEGIN + TENANT + END


class _Fake(ThreadingHTTPServer):
    """Answers with `content` in chunks of `size`; `cut` hangs up before the end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.content = WHOLE
        self.size = 7
        self.cut = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Fake

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        content, size = self.server.content, self.server.size
        for start in range(0, len(content), size):
            chunk = content[start : start + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if self.server.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Fake]:
    with _Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PARTYWALL_SIDECAR_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_each_line_is_printed_as_it_came(partywall: Partywall, fake: _Fake, size: int) -> None:
    fake.size = size
    result = partywall("tenants", "export", "acme")
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, WHOLE, "")


def test_an_id_of_which_there_is_nothing_is_told(partywall: Partywall, fake: _Fake) -> None:
    fake.content = BEGIN + END
    result = partywall("tenants", "export", "acme")
    assert (result.exit_code, result.stdout_bytes) == (0, BEGIN + END)
    assert result.stderr == "nothing is kept about acme: is that its id?\n"


def test_a_file_is_its_owners_alone(partywall: Partywall, fake: _Fake) -> None:
    file = Path("acme.ndjson")
    for _ in range(2):  # the second replaces the first
        result = partywall("tenants", "export", "acme", "--output", str(file))
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "3 lines about acme are in acme.ndjson\n"
        assert file.read_bytes() == WHOLE
        assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in Path().iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("content", "cut"), [(BEGIN, False), (BEGIN + TENANT, True), (WHOLE[:-3], True), (b"", False)]
)
def test_what_was_cut_is_no_file(
    partywall: Partywall, fake: _Fake, content: bytes, cut: bool
) -> None:
    fake.content, fake.cut = content, cut
    before = Path("acme.ndjson")
    before.write_text("of yesterday")
    result = partywall("tenants", "export", "acme", "-o", str(before))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert before.read_text() == "of yesterday"
    assert [one.name for one in Path().iterdir()] == [before.name]


def test_who_is_refused_gets_a_sentence_and_no_file(partywall: Partywall, fake: _Fake) -> None:
    fake.status = 404
    fake.content = json.dumps({"detail": "tenant 'acme' is not registered"}).encode()
    result = partywall("tenants", "export", "acme", "-o", "acme.ndjson")
    assert (result.exit_code, result.stderr) == (1, "tenant 'acme' is not registered\n")
    assert list(Path().iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(partywall: Partywall, fake: _Fake) -> None:
    assert fake.status == 200
    result = partywall("tenants", "export", "acme", "-o", "none/acme.ndjson")
    assert result.exit_code == 1
    assert result.stderr == "cannot write none/acme.ndjson: No such file or directory\n"
