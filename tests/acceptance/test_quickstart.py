"""docs/quickstart.md, typed in step by step as it stands there."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.conftest import SidecarFactory
from tests.support.pages import ROOT, blocks
from tests.support.processes import eventually
from tests.support.served import Served, environment, served
from tests.support.sidecar import Sidecar

PAGE = ROOT / "docs" / "quickstart.md"

PROTECTED, COSTLIER, NEEDED, TEST = blocks(PAGE, "python")
(TIERS,) = blocks(PAGE, "toml")


def terminal(containing: str) -> str:
    """The commands of the one block of the page that has this in it."""
    (commands,) = (block for block in blocks(PAGE, "sh") if containing in block)
    return commands


def whole_app() -> str:
    """`app.py` after all steps."""
    (replaced,) = (line for line in PROTECTED.splitlines() if line.startswith("app.add_middleware"))
    return PROTECTED.replace(replaced, COSTLIER) + NEEDED


@pytest.fixture
def one(sidecar: SidecarFactory) -> Sidecar:
    """A sidecar with the page's tiers."""
    return sidecar(quotas=TIERS)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the reader works, beside a clone."""
    commands = tmp_path / "partywall" / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "partywall").symlink_to(Path(sys.executable).with_name("partywall"))
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.toml").write_text(TIERS)
    (shop / "app.py").write_text(whole_app())
    (shop / "test_app.py").write_text(TEST)
    return shop


@pytest.fixture
def acme(one: Sidecar, desk: Path) -> Iterator[httpx.Client]:
    """A client of acme's, of the app after all steps."""
    with served(started_as_shown(), desk, environment(one)) as app, client_of(app) as client:
        yield client


def started_as_shown() -> list[str]:
    commands = terminal("uvicorn app:app")
    assert "--port 8000" in commands
    return ["sh", "-c", commands.replace("--port 8000", "--port 0")]


def client_of(app: Served) -> httpx.Client:
    return httpx.Client(verify=False, base_url=app.url, headers={"X-Tenant-ID": "acme"}, timeout=30)


def test_the_protected_app_says_what_remains(one: Sidecar, desk: Path) -> None:
    (desk / "app.py").write_text(PROTECTED)
    with served(started_as_shown(), desk, environment(one)) as app, client_of(app) as client:
        answer = client.get("/orders")
        nobody = httpx.get(f"{app.url}/orders")
    assert (answer.status_code, answer.json()) == (200, {"tenant": "acme"})
    assert answer.headers["RateLimit-Policy"] == '"requests";q=100;w=60'
    assert answer.headers["RateLimit-Policy"] in PAGE.read_text()
    assert nobody.status_code == 400


def test_exports_are_charged_five_and_denied_in_the_apps_own_words(acme: httpx.Client) -> None:
    # Five, though two go through: one answered without the sidecar, in time, would not matter.
    answers = [acme.post("/exports/orders") for _ in range(5)]
    assert [answers[0].status_code, answers[-1].status_code] == [200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"exports";q=10;w=3600'
    assert answers[-1].json() == {"error": "slow down"}
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600 * 1.05


def test_an_exempt_path_is_not_governed(acme: httpx.Client) -> None:
    answer = acme.get("/health", headers={"X-Tenant-ID": ""})
    assert answer.status_code == 200
    assert "RateLimit" not in answer.headers


def test_a_search_costs_eleven(acme: httpx.Client) -> None:
    remaining = [int(acme.post("/search").headers["X-RateLimit-Remaining"]) for _ in range(3)]
    # At least: what came too late on a busy machine is charged all the same.
    assert all(before - after >= 11 for before, after in pairwise(remaining))


def test_a_feature_comes_with_the_tier_and_a_suspension_goes_with_its_end(
    acme: httpx.Client, one: Sidecar, desk: Path
) -> None:
    lacking = acme.get("/analytics")
    assert (lacking.status_code, lacking.json()["upgrade"]) == (402, "pro")
    to_pro, override, suspend, activate = terminal("tenants set acme --tier pro").splitlines()

    def run(*commands: str) -> None:
        subprocess.run(["sh", "-ec", "\n".join(commands)], env=environment(one), check=True)

    run(to_pro, override)
    eventually(lambda: acme.get("/analytics").status_code == 200)
    eventually(lambda: "q=5000;" in acme.get("/orders").headers["RateLimit-Policy"])
    run(suspend)
    eventually(lambda: acme.get("/orders").status_code == 403)
    run(activate)
    eventually(lambda: acme.get("/orders").status_code == 200)


def test_the_apps_openapi_has_what_partywall_may_answer(acme: httpx.Client) -> None:
    paths = acme.get("/openapi.json").json()["paths"]
    assert {"402", "429"} <= paths["/analytics"]["get"]["responses"].keys()
    assert "402" not in paths["/search"]["post"]["responses"]


def test_its_own_tests_pass_without_a_sidecar(desk: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=desk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "3 passed" in ran.stdout
