"""The fake sidecar: what it decides, whom it stands in for, and that its clock is all there is."""

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from partywall import (
    ConfigurationError,
    Conflict,
    InvalidRequest,
    Partywall,
    PartywallMiddleware,
    SidecarUnavailable,
    SyncPartywall,
    UnknownLimit,
    UnknownTenant,
    current_tenant,
)
from partywall.tenants import FromDomain, FromHeader
from partywall.testing import FakeSidecar
from partywall.transport import substituted
from tests.support.starlette_client import TestClient

TIERS = {
    "free": {"limits": {"requests": "3/minute", "exports": ["2/second", "10/hour"]}},
    "pro": {"extends": "free", "limits": {"requests": "unlimited"}, "features": ["analytics"]},
}

pytest_plugins = ["partywall.pytest_plugin"]


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(current_tenant()))


def an_app(tenant: Any = None, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", hello)])
    app.add_middleware(PartywallMiddleware, tenant=tenant or FromHeader("X-Tenant"), **options)
    return app


# Made once, as host apps are; every test finds it again.
shared_app = an_app()
shared_client = Partywall("https://nobody.invalid")


def get(app: Starlette, tenant: str = "acme", **options: Any) -> Any:
    return TestClient(app, **options).get("/", headers={"X-Tenant": tenant})


# Deciding


async def test_a_limit_admits_its_quota_and_then_denies() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        decisions = [await pw.check("acme") for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0, 0]
    denial = decisions[-1]
    assert (denial.reason, denial.tier, denial.retry_after) == ("limit-exceeded", "free", 60.0)
    assert not any(decision.degraded for decision in decisions)


async def test_time_passes_only_when_told_and_is_exact() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        begin = sidecar.now
        for _ in range(3):
            assert await pw.check("acme")
            sidecar.advance(10)
        denial = await pw.check("acme")
        assert denial.retry_after == 30.0
        sidecar.advance(29.999999)
        assert not await pw.check("acme")
        sidecar.advance(0.000001)
        assert await pw.check("acme")
        assert not await pw.check("acme")
        assert sidecar.now == begin + 60


async def test_waiting_for_retry_after_is_enough() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        admitted = 0
        for _ in range(30):
            decision = await pw.check("acme", "exports")
            admitted += decision.allowed
            sidecar.advance(decision.retry_after or 0.1)
            assert decision.retry_after is not None
        assert admitted > 10


async def test_every_window_of_a_limit_must_have_room_and_all_are_charged_or_none() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        assert await pw.check("acme", "exports", cost=2)
        denial = await pw.check("acme", "exports")
        assert [window.remaining for window in denial.windows] == [0, 8]
        for _ in range(4):
            sidecar.advance(1)
            assert await pw.check("acme", "exports", cost=2)
        sidecar.advance(1)
        denial = await pw.check("acme", "exports")
        assert [window.remaining for window in denial.windows] == [2, 0]
        assert denial.retry_after == 3600.0 - 5


async def test_a_cost_above_the_quota_is_never_admitted() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        denial = await pw.check("acme", cost=4)
        assert (denial.allowed, denial.retry_after) == (False, None)
        assert (await pw.check("acme", cost=3)).allowed


async def test_checks_at_the_same_moment_are_exact_whatever_they_cost() -> None:
    async with FakeSidecar({"free": {"limits": {"requests": "7/minute"}}}), Partywall() as pw:
        costs = [3, 3, 3, 1, 1]
        decisions = await asyncio.gather(*(pw.check("acme", cost=cost) for cost in costs))
        assert [decision.allowed for decision in decisions] == [True, True, False, True, False]


async def test_a_limit_that_a_tier_does_not_name_is_unlimited_for_it() -> None:
    tiers: Any = {"free": {}, "pro": {"limits": {"exports": "1/hour"}}}
    async with FakeSidecar(tiers), Partywall() as pw:
        for _ in range(5):
            decision = await pw.check("acme", "exports")
            assert decision
        assert (decision.remaining, decision.windows) == (None, ())


async def test_a_limit_that_only_observes_denies_nothing_and_shows_how_it_stands() -> None:
    tiers: Any = {"free": {"limits": {"requests": {"rate": "1/minute", "enforce": False}}}}
    async with FakeSidecar(tiers), Partywall() as pw:
        decisions = [await pw.check("acme") for _ in range(3)]
        assert all(decisions)
        assert decisions[-1].remaining == 0


async def test_unknown_limits_and_tenants_are_errors_as_ever() -> None:
    async with FakeSidecar(TIERS, default_tier=None) as sidecar, Partywall() as pw:
        with pytest.raises(UnknownTenant):
            await pw.check("acme")
        sidecar.tenant("acme", tier="free")
        with pytest.raises(UnknownLimit):
            await pw.check("acme", "nope")
        for dry_run in (False, True):
            answers = await pw.check_many([("acme", "nope"), ("nobody",)])
            assert [one.reason for one in answers] == ["unknown-limit", "unknown-tenant"]
            with pytest.raises(UnknownTenant):
                await pw.check("nobody", dry_run=dry_run)


async def test_a_dry_run_changes_nothing_and_is_not_noted() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for _ in range(9):
            assert (await pw.check("acme", cost=3, dry_run=True)).remaining == 0
        assert (await pw.check("acme", cost=3)).remaining == 0
        assert not await pw.check("acme", dry_run=True)
        assert sidecar.checks == [("acme", "requests", 3, True)]


# What a test says happens


async def test_a_changed_tier_a_suspension_and_its_end_are_felt_by_the_next_check() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for _ in range(4):
            denial = await pw.check("acme")
        assert not denial
        sidecar.tenant("acme", tier="pro")
        assert (await pw.check("acme")).tier == "pro"
        sidecar.suspend("acme")
        assert (await pw.check("acme")).reason == "tenant-suspended"
        record = sidecar.tenant("acme", status="active")
        assert (record.tier, record.features) == ("pro", ("analytics",))
        assert await pw.check("acme")


async def test_a_denial_to_order_lasts_as_long_as_it_says() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        sidecar.deny("acme", seconds=30)
        denial = await pw.check("acme")
        assert (denial.reason, denial.retry_after, denial.remaining) == ("limit-exceeded", 30.0, 0)
        assert await pw.check("acme", "exports")
        assert await pw.check("other")
        sidecar.advance(30)
        assert (await pw.check("acme")).remaining == 2


async def test_even_what_is_unlimited_is_denied_to_order() -> None:
    with FakeSidecar(TIERS, default_tier="pro") as sidecar:
        sidecar.deny("acme")
        answer = get(shared_app)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


async def test_an_outage_is_decided_by_on_outage_and_ends_at_once() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall(on_outage="local") as pw:
        assert not (await pw.check("acme")).degraded
        sidecar.fail()
        decisions = [await pw.check("acme") for _ in range(5)]
        assert all(decision.degraded for decision in decisions)
        # By the windows that it was told of before.
        assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
        sidecar.restore()
        again = await pw.check("acme")
        assert (again.allowed, again.degraded, again.remaining) == (True, False, 1)


async def test_an_outage_can_come_again() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall(on_outage="closed") as pw:
        for _ in range(3):
            assert await pw.check("acme", "exports")
            sidecar.fail()
            with pytest.raises(SidecarUnavailable):
                await pw.check("acme", "exports")
            with pytest.raises(SidecarUnavailable):
                await pw.check_many([("acme",)])
            sidecar.restore()
            sidecar.advance(1)


async def test_what_was_asked_is_noted() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.check("acme", "exports", cost=2)
        await pw.check("acme", "exports", cost=2)
        await pw.check_many([("other",)])
        assert sidecar.checks == [
            ("acme", "exports", 2, True),
            ("acme", "exports", 2, False),
            ("other", "requests", 1, True),
        ]
        assert sidecar.checks[0].cost == 2


# Tenants


async def test_tenants_are_registered_by_the_app_or_by_the_test() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        made = await pw.put_tenant("acme", tier="pro", domains=["B.example", "a.example"])
        assert (made.name, made.status, made.domains) == ("acme", "active", made.domains)
        assert made.domains == ("a.example", "b.example")
        sidecar.advance(5)
        changed = sidecar.tenant("acme", name="Acme Ltd")
        assert await pw.get_tenant("acme") == changed
        assert (changed.updated_at - changed.created_at).total_seconds() == 5
        assert await pw.tenant_of_domain("A.example") == "acme"
        assert await pw.tenant_of_domain("c.example") is None
        with pytest.raises(UnknownTenant):
            await pw.get_tenant("other")
        with pytest.raises(Conflict):
            await pw.put_tenant("other", tier="free", domains=["a.example"])
        with pytest.raises(InvalidRequest, match="expected one of free, pro") as refused:
            await pw.put_tenant("other", tier="gold")
        assert refused.value.errors[0][0] == "tier"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tier": "gold"}, "expected one of free, pro"),
        ({"tier": "free", "domains": ["a b"]}, "domains"),
        ({"tier": "free", "status": "gone"}, "gone"),
        ({}, "there is no default"),
    ],
)
def test_a_tenant_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        FakeSidecar(TIERS, default_tier=None).tenant("acme", **change)


# Whom it stands in for


def test_an_app_made_at_import_meets_the_fake_of_each_test() -> None:
    for _ in range(2):
        with FakeSidecar(TIERS):
            statuses = [get(shared_app).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]


def test_the_headers_of_an_answer_are_the_real_ones() -> None:
    with FakeSidecar(TIERS) as sidecar:
        answer = get(shared_app)
        assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=60'
        assert answer.headers["ratelimit"] == '"requests";r=2;t=60'
        sidecar.deny("acme")
        denied = get(shared_app)
        assert denied.json()["upgrade"] == "pro"
        assert denied.json()["violated-policies"] == ["requests"]


def test_it_serves_an_app_with_a_lifespan_and_requests_on_one_loop() -> None:
    with FakeSidecar(TIERS), TestClient(shared_app) as client:
        statuses = [client.get("/", headers={"X-Tenant": "b"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_it_serves_an_app_over_httpx() -> None:
    async with (
        FakeSidecar(TIERS) as sidecar,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(shared_app),
            base_url="http://app",
            headers={"X-Tenant": "acme"},
        ) as client,
    ):
        answers = await asyncio.gather(*(client.get("/") for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 7
        sidecar.advance(60)
        assert (await client.get("/")).text == "acme"


async def test_one_client_meets_it_on_any_loop() -> None:
    with FakeSidecar(TIERS):
        for _ in range(3):
            assert await shared_client.check("acme")
        assert not await asyncio.to_thread(asyncio.run, shared_client.check("acme"))


def test_it_serves_code_without_a_loop() -> None:
    with FakeSidecar(TIERS) as sidecar, SyncPartywall() as pw:
        assert [bool(pw.check("acme")) for _ in range(4)] == [True, True, True, False]
        sidecar.fail()
        assert pw.check("acme").degraded
        sidecar.restore()
        assert not pw.check("acme").degraded


def test_a_domain_finds_its_tenant() -> None:
    with FakeSidecar(TIERS) as sidecar:
        sidecar.tenant("acme", domains=["app.acme.example"])
        app = an_app(FromDomain())
        answer = TestClient(app, base_url="http://app.acme.example").get("/")
        assert answer.text == "acme"


def test_an_outage_reaches_an_apps_clients() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = an_app(on_outage="closed")
        assert get(app).status_code == 200
        sidecar.fail()
        assert get(app).status_code == 503
        sidecar.restore()
        assert get(app).status_code == 200


async def test_fakes_may_be_nested_and_leave_no_trace() -> None:
    pw = Partywall()
    assert substituted() is None
    with FakeSidecar(TIERS) as outer:
        outer.fail()
        with FakeSidecar(TIERS) as inner:
            outer.restore()
            await pw.check("acme")
        await pw.check("acme", "exports")
    assert [check.limit for check in inner.checks] == ["requests"]
    assert [check.limit for check in outer.checks] == ["exports"]
    assert substituted() is None
    with pytest.raises(ConfigurationError, match="there is no token"):
        await pw.check("acme")


def test_one_fake_is_in_use_once() -> None:
    with FakeSidecar() as sidecar, pytest.raises(ConfigurationError, match="in use already"):
        sidecar.__enter__()


async def test_the_parts_of_the_api_that_clients_do_not_use_answer_too() -> None:
    with FakeSidecar(TIERS) as sidecar:
        for tenant in ("b", "a", "c"):
            sidecar.tenant(tenant, tier="pro" if tenant == "c" else "free")
        transport = substituted()
        assert transport is not None
        async with httpx.AsyncClient(transport=transport, base_url="http://sidecar") as http:
            assert (await http.get("/healthz")).text == "ok\n"
            first = (await http.get("/v1/tenants?page_size=2")).json()
            assert [one["tenant"] for one in first["tenants"]] == ["a", "b"]
            rest = (await http.get(f"/v1/tenants?cursor={first['next_cursor']}")).json()
            assert [one["tenant"] for one in rest["tenants"]] == ["c"]
            assert rest["next_cursor"] is None
            pros = (await http.get("/v1/tenants?tier=pro&status=active")).json()
            assert [one["tenant"] for one in pros["tenants"]] == ["c"]
            for path, method, status in [
                ("/v1/jobs", "GET", 404),
                ("/v1/check", "GET", 405),
                ("/v1/tenants", "POST", 405),
                ("/v1/tenants/a", "DELETE", 405),
            ]:
                answer = await http.request(method, path)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
            for body in (b"{", b'{"tenant": "a", "cost": 0}', b'{"tenant": "a", "new": 1}'):
                answer = await http.post("/v1/check", content=body)
                assert answer.json()["type"] == "urn:partywall:problem:invalid-request"
            many = await http.post("/v1/checks", json=[{"tenant": "a"}] * 1001)
            assert many.status_code == 413
            nameless = await http.put("/v1/tenants/-", json={"tier": "pro"})
            assert nameless.json()["errors"][0]["field"] == "tenant"


# The policy


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ({}, "tiers: expected at least one tier"),
        ([], "tiers: expected a table"),
        ({"pro": {}}, "default_tier: expected one of pro, or None; got 'free'"),
        ({"free": 1}, "tiers.free: expected a table; got 1"),
        ({"free": {"limit": {}}}, "tiers.free: expected extends, limits"),
        ({"free": {"extends": "gold"}}, "tiers.free.extends: expected one of no tier; got 'gold'"),
        ({"free": {"extends": "free"}}, "tiers.free.extends: "),
        ({"free": {"extends": "pro"}, "pro": {"extends": "free"}}, "tiers.pro.extends: "),
        ({"free": {"features": "one"}}, "tiers.free.features: expected a list of names"),
        ({"free": {"limits": {"requests": "often"}}}, r"tiers.free.limits.requests: expected a r"),
        ({"free": {"limits": {"requests": 5}}}, "tiers.free.limits.requests: expected a rate"),
        ({"free": {"limits": {"requests": []}}}, "each window once; got "),
        ({"free": {"limits": {"requests": ["1/minute", "9/minute"]}}}, "each window once; got "),
        ({"free": {"limits": {"requests": "0/minute"}}}, "expected quotas from 1"),
        ({"free": {"limits": {"a b": "1/minute"}}}, "tiers.free.limits: expected names of 1 to 64"),
        ({"free": {"limits": {"r": {"enforce": True}}}}, "tiers.free.limits.r.rate: expected a r"),
        ({"free": {"limits": {"r": {"rate": "1/day", "enforce": 1}}}}, "enforce: expected true or"),
        ({"free": {"limits": {"r": {"rates": "1/day"}}}}, "limits.r: expected rate, enforce, on_"),
        ({"free": {"quotas": 5}}, "tiers.free.quotas: expected a table; got 5"),
        ({"free": {"quotas": {"a b": 1}}}, "tiers.free.quotas: expected names of 1 to 64"),
        ({"free": {"quotas": {"u": -2}}}, "tiers.free.quotas.u: expected a whole number from 0"),
        ({"free": {"quotas": {"u": "1 XB"}}}, "or \"unlimited\"; got '1 XB'"),
        ({"free": {"quotas": {"u": "0.5 B"}}}, "quotas.u: expected a whole number"),
        ({"free": {"quotas": {"u": {"per": "day"}}}}, "quotas.u.limit: expected a whole number"),
        ({"free": {"quotas": {"u": {"limit": 1, "per": "year"}}}}, "u.per: expected one of day, w"),
        ({"free": {"quotas": {"u": {"limit": 1, "by": 1}}}}, "u: expected limit, per; got 'by'"),
    ],
)
def test_a_policy_that_cannot_be_says_what_was_expected_where(tiers: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        FakeSidecar(tiers)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (5, "resources: expected a table; got 5"),
        ({"seats": {}}, "resources.seats: no tier has a quota of it; expected one of users"),
        ({"users": {"durable": 1}}, "resources.users.durable: expected true or false; got 1"),
        ({"users": {"thresholds": 80}}, "resources.users.thresholds: expected up to 10 whole perc"),
        ({"users": {"thresholds": [90, 80]}}, "ascending; got"),
        ({"users": {"unit": "B"}}, "resources.users: expected durable, thresholds; got 'unit'"),
    ],
)
def test_a_resource_that_cannot_be_says_what_was_expected_where(resources: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        FakeSidecar({"free": {"quotas": {"users": 1}}}, resources=resources)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda it: it.advance(-1), "expected seconds, 0 or more; got -1"),
        (lambda it: it.deny("acme", "nope"), "expected one of requests; got 'nope'"),
        (lambda it: it.deny("acme", seconds=0), "expected seconds, above 0; got 0"),
        (lambda it: it.from_toml("/nowhere/quotas.toml"), "expected a policy in TOML"),
    ],
)
def test_what_cannot_happen_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        call(FakeSidecar())


async def test_its_own_tiers_are_those_that_ship() -> None:
    shipped = Path(__file__).parents[3] / "quotas.toml"
    tiers = tomllib.loads(shipped.read_text())["tiers"]
    quotas = []
    for sidecar in (FakeSidecar(), FakeSidecar.from_toml(shipped)):
        with sidecar:
            async with Partywall() as pw:
                for tier, table in tiers.items():
                    sidecar.tenant(tier, tier=tier)
                    quota = int(table["limits"]["requests"].partition("/")[0])
                    assert (await pw.check(tier)).windows[0].quota == quota
                    record = await pw.get_tenant(tier)
                    assert list(record.features) == table.get("features", [])
                    quotas.append(await pw.quotas(tier))
    assert quotas[:3] == quotas[3:]
    assert [quota.resource for quota in quotas[0]] == list(tiers["free"]["quotas"])


# pytest


async def test_the_fixture_gives_each_test_a_fake_of_its_own(fake_sidecar: FakeSidecar) -> None:
    assert (await shared_client.check("acme")).remaining == 99
    assert fake_sidecar.checks == [("acme", "requests", 1, True)]


def test_the_module_needs_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from partywall.testing import FakeSidecar; FakeSidecar()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# docs/testing.md


def test_the_pages_snippets_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs" / "testing.md"
    names: dict[str, Any] = {}
    for snippet in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(snippet, str(page), "exec"), names)
    names["test_a_customer_is_denied_at_the_limit_and_let_on_a_minute_later"]()
    assert capsys.readouterr().out == (
        "limit-exceeded 30.0\n998\nTrue\nFalse\nFalse\nTrue\n"
        "send_email {'to': 'a@b.c'}\n"
        "retrying ConnectionError: no line\n"
        "a@b.c, of acme, by me\n"
    )
    assert names["pytest_plugins"] == pytest_plugins
