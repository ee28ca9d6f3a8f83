"""What the admin's commands say when there is no proper answer (with one: acceptance tests)."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Partywall


class _Answers(ThreadingHTTPServer):
    """Answers everything alike: not a sidecar, but what stands where one was expected.

    Attributes:
        reply: status, content type, body.
        seen: the last request's Authorization.
    """

    reply: tuple[int, str, bytes] = (200, "application/json", b"{}")
    seen: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Answers

    def do_GET(self) -> None:
        self.server.seen = self.headers["Authorization"]
        status, kind, body = self.server.reply
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's naming

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


@pytest.fixture
def answers() -> Iterator[_Answers]:
    with _Answers(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
    return "a-token"


@pytest.mark.usefixtures("token")
def test_a_refused_connection_says_what_to_do(partywall: Partywall) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = partywall("tenants", "list", "--url", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"no sidecar answers at {url}")
    assert "`partywall serve`" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((200, "text/html", b"<h1>It works!</h1>"), "something else than a Partywall sidecar"),
        ((200, "application/json", b'["a list"]'), "something else than a Partywall sidecar"),
        ((200, "application/json", b'{"tenants": [1]}'), "something else than a Partywall sidecar"),
        ((200, "application/json", b'{"items": []}'), "something else than a Partywall sidecar"),
        ((200, "application/json", b'{"tenants": [], "next'), "something else than a Partywall"),
        ((200, "application/json", b"\xff\xfe"), "something else than a Partywall sidecar"),
        ((404, "text/plain", b"nothing here"), "answered 404 and no problem+json"),
        ((502, "text/html", b"<h1>Bad Gateway</h1>"), "answered 502 and no problem+json"),
        ((302, "text/html", b""), "answered 302 and no problem+json"),
        ((500, "application/json", b'["?"]'), "answered 500 and no problem+json"),
        ((503, "application/problem+json", b'{"detail": "not\\nnow"}'), "not now"),
        ((503, "application/problem+json", b'{"title": "Away"}'), "Away"),
        ((401, "application/problem+json", b'{"detail": "x"}'), "the token from PARTYWALL_TOKEN"),
    ],
)
def test_an_answer_that_is_not_a_list_of_tenants_is_one_sentence(
    partywall: Partywall, answers: _Answers, reply: tuple[int, str, bytes], said: str
) -> None:
    answers.reply = reply
    result = partywall("tenants", "list", "--url", answers.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("body", [b"{}", b'{"next_cursor": null}', b'{"token": 3}'])
def test_a_made_token_that_is_missing_is_not_printed_as_one(
    partywall: Partywall, answers: _Answers, body: bytes
) -> None:
    answers.reply = (201, "application/json", body)
    result = partywall("tokens", "create", "--name", "x", "--url", answers.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "something else than a Partywall sidecar" in result.stderr


@pytest.mark.usefixtures("token")
def test_a_connection_that_breaks_is_one_sentence(partywall: Partywall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = partywall("tenants", "list", "--url", url)
        thread.join()
    assert result.exit_code == 1
    assert result.stderr.startswith(f"the connection to the sidecar at {url} failed")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "127.0.0.1:8080",
        "http://",
        "http://x:port",
        "http://127.0.0.1:99999999",
        "http://a..b",
    ],
)
def test_a_url_that_is_none_is_a_wrong_use(partywall: Partywall, url: str) -> None:
    result = partywall("tenants", "list", "--url", url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected the sidecar's URL" in result.stderr


def test_the_sidecar_is_found_by_flag_then_environment_then_port(
    partywall: Partywall, answers: _Answers, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.reply = (200, "application/json", b'{"tenants": [], "next_cursor": null}')
    monkeypatch.setenv("PARTYWALL_PORT", str(answers.server_port))
    assert partywall("tenants", "list").exit_code == 0
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", answers.url)
    monkeypatch.setenv("PARTYWALL_PORT", "1")
    assert partywall("tenants", "list").exit_code == 0
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", "http://127.0.0.1:1")
    assert partywall("tenants", "list").exit_code == 1
    assert partywall("tenants", "list", "--url", answers.url).exit_code == 0
    assert answers.seen == f"Bearer {token}"


def test_the_token_is_found_in_the_environment_then_on_disk(
    partywall: Partywall, answers: _Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> str | None:
        assert partywall("tenants", "show", "acme", "--url", answers.url).exit_code == 0
        return answers.seen

    Path(".partywall").mkdir()
    Path(".partywall/admin-token").write_text("by-default\n")
    assert shown() == "Bearer by-default"
    Path("data").mkdir()
    Path("data/admin-token").write_text("of-data-dir\n")
    monkeypatch.setenv("PARTYWALL_DATA_DIR", "data")
    assert shown() == "Bearer of-data-dir"
    monkeypatch.setenv("PARTYWALL_ADMIN_TOKEN", "admins")
    assert shown() == "Bearer admins"
    monkeypatch.setenv("PARTYWALL_TOKEN", "mine")
    assert shown() == "Bearer mine"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no token: set PARTYWALL_TOKEN"),
        (b"", "expected a token in .partywall/admin-token"),
        (b"two\nlines", "expected a token in .partywall/admin-token"),
        ("schlüssel".encode(), "expected a token in .partywall/admin-token"),
        (b"\xff\xfe", "cannot read the token in .partywall/admin-token: it is not text"),
    ],
)
def test_a_token_that_is_none_is_one_sentence(
    partywall: Partywall, content: bytes | None, said: str
) -> None:
    Path(".partywall").mkdir()
    if content is not None:
        Path(".partywall/admin-token").write_bytes(content)
    result = partywall("tenants", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


@pytest.mark.usefixtures("token")
def test_a_proxy_is_not_handed_the_token_of_this_machine(
    partywall: Partywall, answers: _Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert partywall("tenants", "show", "acme", "--url", answers.url).exit_code == 0


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("name", "value"), [("SSL_CERT_FILE", "missing.pem"), ("HTTPS_PROXY", "nonsense://x")]
)
def test_an_environment_that_no_connection_can_be_made_by_is_one_sentence(
    partywall: Partywall, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    result = partywall("tenants", "list", "--url", "https://sidecar.example")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("cannot set up a connection to https://sidecar.example")


@pytest.mark.usefixtures("token")
def test_delete_asks_only_where_somebody_can_answer(
    partywall: Partywall, answers: _Answers
) -> None:
    result = partywall("tenants", "delete", "acme", "--url", answers.url, stdin="y\n")
    assert (result.exit_code, answers.seen) == (2, None)
    assert "expected --yes" in result.stderr


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("lasts", ["2", "h", "0h", "-1h", "2 h", "1y", "2h30m", "999999w"])
def test_a_time_that_is_none_is_a_wrong_use(
    partywall: Partywall, answers: _Answers, lasts: str
) -> None:
    result = partywall(
        *("overrides", "set", "acme", "limits", "requests", "1/day", "--reason", "x"),
        *(f"--for={lasts}", "--url", answers.url),
    )
    assert (result.exit_code, answers.seen) == (2, None)
    assert "expected --for with a time" in result.stderr
