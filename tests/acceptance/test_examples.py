"""examples/shop under a real uvicorn, on a real sidecar."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import jwt
import pytest

from tests.acceptance.asking import PATIENT, fresh_tenant
from tests.support.pages import ROOT, blocks
from tests.support.processes import eventually
from tests.support.run import TestRun
from tests.support.served import Served, environment, pretend_activation, served
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

SHOP = ROOT / "examples" / "shop"
IGNORED = shutil.ignore_patterns("__pycache__")

SECRET = "a-secret-of-32-bytes-or-more-for-this-shop"
"""As README has it."""


class Shop(NamedTuple):
    """The shop as its README starts it, and the sidecar behind it."""

    app: Served
    sidecar: Sidecar
    directory: Path

    def merchant(self, tenant: str, secret: str = SECRET) -> httpx.Client:
        """A merchant's own program."""
        claims = {"merchant": tenant, "exp": int(time.time()) + 3600}
        token = jwt.encode(claims, secret, "HS256")
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(verify=False, base_url=self.app.url, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def shop(test_run: TestRun) -> Iterator[Shop]:
    """Each test brings merchants of its own."""
    directory = test_run.fresh_dir("shop")
    shutil.copytree(SHOP, directory / "examples" / "shop", ignore=IGNORED)
    shutil.copy(SHOP / "quotas.toml", directory)
    pretend_activation(directory)
    database = test_run.create_database()
    env = {
        "PARTYWALL_ADMIN_TOKEN": ADMIN_TOKEN,
        "PARTYWALL_DATA_DIR": str(directory / "data"),
        "PARTYWALL_REDIS_URL": test_run.valkey.url,
        "PARTYWALL_DATABASE_URL": database,
        "PARTYWALL_KEY_PREFIX": f"t{uuid.uuid4().hex[:16]}",
        **PATIENT,
    }
    sidecar = Sidecar(directory, env)
    sidecar.start()
    start = terminal("uvicorn")
    assert "--port 8000" in start
    command = ["sh", "-c", start.replace("--port 8000", "--port 0")]
    with served(command, directory, environment(sidecar)) as app:
        yield Shop(app, sidecar, directory)
    sidecar.close()
    test_run.drop_database(database)


def terminal(containing: str) -> str:
    """The commands of the one block of its README that has this in it."""
    (commands,) = (block for block in blocks(SHOP / "README.md", "sh") if containing in block)
    return commands


def test_a_merchant_is_admitted_and_told_what_remains(shop: Shop) -> None:
    with shop.merchant(fresh_tenant()) as acme:
        answer = acme.get("/orders")
    assert (answer.status_code, answer.json()) == (200, [])
    assert answer.headers["RateLimit-Policy"] == '"requests";q=60;w=60'
    assert re.fullmatch(r'"requests";r=\d+;t=\d+', answer.headers["RateLimit"])


def test_a_merchant_is_denied_at_its_tiers_limit(shop: Shop) -> None:
    tenant = fresh_tenant()
    with shop.merchant(tenant) as acme:
        # More than the 60 of its tier, for a machine so busy that the app decides some by itself.
        answers = [acme.get("/orders") for _ in range(90)]
    denied = answers[-1]
    assert (answers[0].status_code, denied.status_code) == (200, 429)
    assert denied.headers["Content-Type"] == "application/problem+json"
    assert denied.headers["RateLimit-Policy"] == '"requests";q=60;w=60'
    assert denied.headers["X-RateLimit-Remaining"] == "0"
    assert 0 < int(denied.headers["Retry-After"]) <= 63
    problem = denied.json()
    assert problem["violated-policies"] == ["requests"]
    assert (problem["tenant"], problem["tier"], problem["upgrade"]) == (tenant, "free", "pro")
    assert problem["pricing"] == "https://shop.example/pricing"


def test_a_catalogue_is_charged_five_of_another_limit(shop: Shop) -> None:
    with shop.merchant(fresh_tenant()) as acme:
        answers = [acme.post("/exports/orders.pdf") for _ in range(5)]
    assert answers[0].headers["RateLimit-Policy"] == '"exports";q=10;w=3600'
    assert int(answers[0].headers["X-RateLimit-Remaining"]) <= 5
    assert (answers[0].status_code, answers[-1].status_code) == (200, 429)


def test_analytics_come_with_the_pro_plan(shop: Shop) -> None:
    tenant = fresh_tenant()
    with shop.merchant(tenant) as acme:
        acme.post("/orders", json={"item": "tea", "amount": 3})
        lacking = acme.get("/analytics")
        assert lacking.status_code == 402
        problem = lacking.json()
        assert (problem["feature"], problem["upgrade"]) == ("analytics", "pro")
        to_pro = terminal("tenants set").replace("acme", tenant)
        subprocess.run(["sh", "-c", to_pro], env=environment(shop.sidecar), check=True)
        answer = eventually(lambda: _ok(acme.get("/analytics")))
    assert answer.json() == [{"item": "tea", "sold": 3}]
    assert answer.headers["RateLimit-Policy"] == '"requests";q=600;w=60, "requests-1s";q=50;w=1'


def _ok(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code == 200 else None


def test_a_visitor_names_the_merchant_by_subdomain_and_sees_no_orders(shop: Shop) -> None:
    tenant = fresh_tenant()
    headers = {"Host": f"{tenant}.shop.localhost"}
    with httpx.Client(verify=False, base_url=shop.app.url, headers=headers) as visitor:
        assert visitor.get("/").json() == f"Welcome to {tenant}!"
        assert visitor.post("/orders", json={"item": "tea"}).status_code == 201
        assert visitor.get("/orders").status_code == 401
    with shop.merchant(tenant) as merchant:
        assert merchant.get("/orders").json() == [{"item": "tea", "amount": 1}]


def test_forged_and_misplaced_tokens_are_refused(shop: Shop) -> None:
    tenant = fresh_tenant()
    with shop.merchant(tenant, secret="b" * 32) as forger:
        assert forger.get("/orders").status_code == 401
    with shop.merchant(tenant) as merchant:
        elsewhere = merchant.get("/orders", headers={"Host": "other.shop.localhost"})
        assert elsewhere.status_code == 403


def test_a_quiet_merchant_hears_nothing_of_a_noisy_one(shop: Shop) -> None:
    commands = terminal("traffic.py").replace("traffic.py", f"traffic.py {shop.app.url}")
    ran = subprocess.run(
        ["sh", "-c", commands],
        cwd=shop.directory,
        env=environment(shop.sidecar),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"(noisy|quiet) +│ +(\d+) +│ +(\d+) +│ +(\d+) +│ +(\d+)", ran.stdout)
    noisy, quiet = ([int(count) for count in counts] for _, *counts in rows)
    assert noisy[0] == 300
    assert noisy[2] > 200
    assert quiet == [30, 30, 0, 0]
    (shown,) = blocks(SHOP / "README.md", "text")
    assert shown.splitlines()[:3] == ran.stdout.splitlines()[:3]


def test_the_shops_own_tests_pass_without_a_sidecar(tmp_path: Path) -> None:
    shutil.copytree(SHOP, tmp_path / "shop", ignore=IGNORED)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PARTYW")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "shop"],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^8 passed", ran.stdout, re.MULTILINE)
