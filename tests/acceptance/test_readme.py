"""README's host app, typed in as it stands there; and that no page points to nowhere."""

import json
import subprocess
from email.parser import Parser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import SidecarFactory
from tests.support.pages import ROOT, blocks, links
from tests.support.served import DEGRADED, Served, environment, pretend_activation, served

README = ROOT / "README.md"
PAGES = [README, *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


class Response(NamedTuple):
    """What `curl -i` prints of one; header names in lower case."""

    status: str
    headers: dict[str, str]
    body: dict[str, Any]


def response(text: str) -> Response:
    status, _, rest = text.replace("\r", "").strip().partition("\n")
    headers, _, body = rest.partition("\n\n")
    fields = Parser().parsestr(headers).items()
    return Response(status, {name.lower(): value for name, value in fields}, json.loads(body))


def terminal(beginning: str) -> str:
    """The commands of the one block of README that begins so."""
    (commands,) = (block for block in blocks(README, "sh") if block.startswith(beginning))
    return commands


def test_the_host_app_has_ten_lines_of_code_at_most() -> None:
    (app,) = blocks(README, "python")
    assert len([line for line in app.splitlines() if line.strip()]) <= 10


def test_the_hundred_and_first_request_of_a_minute_is_denied_as_readme_shows(
    sidecar: SidecarFactory, tmp_path: Path
) -> None:
    (app,) = blocks(README, "python")
    (tmp_path / "app.py").write_text(app)
    pretend_activation(tmp_path)
    env = environment(sidecar())
    start = terminal(". .venv/bin/activate\nexport PARTYWALL_TOKEN=")
    assert "--port 8000" in start

    command = ["sh", "-c", start.replace("--port 8000", "--port 0")]
    with served(command, tmp_path, env) as host:
        tenant, denied = ask_a_hundred_and_one_times(host, env)
        (shown,) = blocks(README, "http")
        promised = response(shown)

    assert denied.status == promised.status == "HTTP/1.1 429 Too Many Requests"
    assert denied.headers.keys() == promised.headers.keys()
    for name in ("content-type", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining"):
        assert denied.headers[name] == promised.headers[name]
    assert denied.headers["ratelimit-policy"] == '"requests";q=100;w=60'
    assert 0 < int(denied.headers["retry-after"]) <= 63
    assert denied.body["upgrade"] == "pro"
    alike = {"tenant": tenant, "detail": denied.body["detail"]}  # it names the seconds
    assert denied.body == {**promised.body, **alike}


def ask_a_hundred_and_one_times(host: Served, env: dict[str, str]) -> tuple[str, Response]:
    """README's loop; anew for another tenant if an answer came too late for the app's deadline."""
    loop = terminal("for request in $(seq 101)").replace("http://127.0.0.1:8000", host.url)
    for tenant in ("tiny", "small", "little"):
        begin = len(host.log)
        said = subprocess.run(
            ["sh", "-c", loop.replace("tiny", tenant)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        if DEGRADED not in host.log[begin:]:
            break
    return tenant, response(said.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_points_to_nowhere(page: Path) -> None:
    missing = [link for link in links(page) if not (page.parent / link).exists()]
    assert not missing
