"""docs/frameworks: each page's app, typed in as it stands there, under a real uvicorn."""

from pathlib import Path

import httpx
import pytest

from tests.conftest import SidecarFactory
from tests.support.pages import ROOT, blocks
from tests.support.served import DEGRADED, Served, environment, served

PAGES = sorted((ROOT / "docs" / "frameworks").glob("*.md"))
QUOTAS = """
default_tier = "free"

[tiers.free.limits]
requests = "3/hour"
"""


def test_there_is_a_page_for_each_framework() -> None:
    assert [page.stem for page in PAGES] == ["django", "fastapi", "litestar", "quart", "starlette"]
    assert all(len(page.read_text().splitlines()) < 60 for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_app_of_the_page_admits_and_denies(
    page: Path, sidecar: SidecarFactory, tmp_path: Path
) -> None:
    (app,) = blocks(page, "python")
    (tmp_path / "app.py").write_text(app)
    # The reader's is the environment that these tests run in: nothing to install.
    (commands,) = blocks(page, "sh")
    _install, token, start = commands.splitlines()
    assert start == "uvicorn app:app"
    command = ["sh", "-c", f"{token}\nexec {start} --port 0"]
    with (
        served(command, tmp_path, environment(sidecar(quotas=QUOTAS))) as host,
        httpx.Client(verify=False, base_url=host.url, timeout=30) as client,
    ):
        assert client.get("/health").json() == {"ok": True}
        assert client.get("/orders").status_code == 400
        tenant, answers = ask_each_once(host, client)
        *admitted, denied = answers
        assert [answer.status_code for answer in answers] == [200, 200, 404, 429], host.log
        assert [answer.json() for answer in admitted[:2]] == [{"tenant": tenant}] * 2
        for left, answer in zip([2, 1, 0], admitted, strict=True):
            assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=3600'
            assert answer.headers["RateLimit"].startswith(f'"requests";r={left};t=')
        assert denied.headers["Content-Type"] == "application/problem+json"
        assert int(denied.headers["Retry-After"]) > 0


def ask_each_once(host: Served, client: httpx.Client) -> tuple[str, list[httpx.Response]]:
    """A new tenant's four requests, all of them decided by the sidecar."""
    for number in range(20):
        tenant, said = f"tenant-{number}", len(host.log)
        answers = [
            client.get(path, headers={"X-Tenant-ID": tenant})
            for path in ("/orders", "/reports", "/elsewhere", "/orders")
        ]
        if DEGRADED not in host.log[said:]:
            return tenant, answers
    raise AssertionError(f"the sidecar was never in time:\n{host.log}")
