"""The async client: what it sends, what it gives, and which event loop its parts belong to."""

import asyncio
import gc
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from partywall.client import Partywall
from partywall.errors import (
    ConfigurationError,
    InvalidRequest,
    SidecarUnavailable,
    UnknownLimit,
    UnknownTenant,
)
from partywall.records import Check
from partywall.transport import substitute

RECORD = {
    "tenant": "acme",
    "name": "Acme Ltd",
    "tier": "pro",
    "status": "active",
    "domains": ["app.acme.example"],
    "features": ["advanced-analytics"],
    "created_at": "2030-01-31T12:00:00Z",
    "updated_at": "2030-01-31T12:00:01.5Z",
    "of_a_later_version": 1,
}
DECISION = {"allowed": True, "tenant": "acme", "tier": "pro", "limit": "exports", "cost": 5}


class Fake:
    """Answers every path as told, and a permit to everybody; a transport for a client.

    Attributes:
        permit: what each ask is answered.
        generous: grants what is asked for instead, ahead of need as well.
        granted: units granted so far; `returned`: those given back.
        seen: what was asked; reports of usage are left out.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.permit: dict[str, Any] = {"allowed": True, "tier": "pro", "seconds": 0.4}
        self.generous = False
        self.granted = self.returned = 0
        self.seen: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/usage":
            return httpx.Response(200, json={"applied": 1})
        self.seen.append(request)
        name = request.url.path.removeprefix("/v1/").replace("/", "_")
        if name != "permits":
            return httpx.Response(200, json=self.answers[name])
        asked = {"asks": [], **json.loads(request.content)}
        self.returned += sum(it["units"] for it in asked.get("returns", []))
        return httpx.Response(200, json={"permits": [self.lease(it) for it in asked["asks"]]})

    def lease(self, ask: dict[str, Any]) -> dict[str, Any]:
        if not self.generous:
            return self.permit
        granted = ask.get("need", 1) + ask.get("ahead", 0)
        self.granted += granted
        window = {"quota": 1000, "window": 60, "remaining": 900, "reset_after": 60.0}
        leased = "lease" in ask
        return {**self.permit, "granted": granted, "leased": leased, "windows": [window]}

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.seen]

    def client(self, **options: Any) -> Partywall:
        return Partywall("http://there", "a-token", transport=self.transport, **options)


# Checks


async def test_a_check_is_answered_from_permits() -> None:
    fake = Fake()
    async with fake.client() as pw:
        decision = await pw.check("acme", "exports", cost=5)
    assert decision
    assert (decision.tenant, decision.tier, decision.limit) == ("acme", "pro", "exports")
    assert fake.paths[0] == "POST /v1/permits"


async def test_a_denial_is_a_value() -> None:
    fake = Fake()
    fake.permit = {"allowed": False, "tier": "pro", "reason": "limit-exceeded", "retry_after": 2.0}
    async with fake.client() as pw:
        decision = await pw.check("acme")
    assert not decision
    assert (decision.reason, decision.retry_after) == ("limit-exceeded", 2.0)


@pytest.mark.parametrize(
    ("reason", "error", "said"),
    [
        ("unknown-tenant", UnknownTenant, "no tenant 'acme' is registered"),
        ("unknown-limit", UnknownLimit, "no tier names a limit 'exports'"),
        ("unavailable", SidecarUnavailable, "cannot be decided now"),
    ],
)
async def test_what_is_no_decision_is_an_error(
    reason: str, error: type[Exception], said: str
) -> None:
    fake = Fake()
    tier = None if reason == "unknown-tenant" else "pro"
    fake.permit = {"allowed": False, "tier": tier, "reason": reason}
    async with fake.client() as pw:
        with pytest.raises(error, match=said):
            await pw.check("acme", "exports")


async def test_a_dry_run_always_asks_and_says_so() -> None:
    fake = Fake(check=DECISION)
    async with fake.client() as pw:
        for _ in range(2):
            assert await pw.check("acme", "exports", cost=5, dry_run=True)
    assert fake.paths == ["POST /v1/check"] * 2
    sent = json.loads(fake.seen[0].content)
    assert sent == {"tenant": "acme", "limit": "exports", "cost": 5, "dry_run": True}


async def test_many_checks_are_structs_or_tuples() -> None:
    fake = Fake(checks=[DECISION] * 4)
    async with fake.client() as pw:
        asked = (
            ("acme",),
            ("acme", "exports"),
            ("acme", "exports", 5),
            Check("acme", dry_run=True),
        )
        assert len(await pw.check_many(it for it in asked)) == 4
    assert json.loads(fake.seen[0].content) == [
        {"tenant": "acme"},
        {"tenant": "acme", "limit": "exports"},
        {"tenant": "acme", "limit": "exports", "cost": 5},
        {"tenant": "acme", "dry_run": True},
    ]


async def test_no_checks_ask_nobody() -> None:
    fake = Fake()
    async with fake.client() as pw:
        assert await pw.check_many([]) == []
    assert fake.seen == []


BAD_CHECKS = [
    ("tenant", "a b", "requests", 1),
    ("tenant", "", "requests", 1),
    ("tenant", "a" * 129, "requests", 1),
    ("tenant", "acme\n", "requests", 1),
    ("tenant", None, "requests", 1),
    ("limit", "acme", "a b", 1),
    ("limit", "acme", "x" * 65, 1),
    ("limit", "acme", None, 1),
    ("cost", "acme", "requests", 0),
    ("cost", "acme", "requests", -1),
    ("cost", "acme", "requests", 2**53),
    ("cost", "acme", "requests", 1.0),
    ("cost", "acme", "requests", True),
    ("cost", "acme", "requests", "1"),
]


@pytest.mark.parametrize(("field", "tenant", "limit", "cost"), BAD_CHECKS)
async def test_what_can_be_no_check_is_refused_unsent(
    field: str, tenant: Any, limit: Any, cost: Any
) -> None:
    fake = Fake()
    async with fake.client() as pw:
        for dry_run in (False, True):
            with pytest.raises(InvalidRequest, match=f"^{field}: expected") as raised:
                await pw.check(tenant, limit, cost=cost, dry_run=dry_run)
            assert [fault[0] for fault in raised.value.errors] == [field]
        with pytest.raises(InvalidRequest, match=rf"^\[1\]\.{field}: expected"):
            await pw.check_many([("acme",), (tenant, limit, cost)])
    assert fake.seen == []


async def test_more_checks_than_one_call_takes_are_refused_unsent() -> None:
    fake = Fake()
    async with fake.client() as pw:
        with pytest.raises(InvalidRequest, match="expected at most 1000 checks; got 1001"):
            await pw.check_many([("acme",)] * 1001)
        not_checks: list[Any] = ["acme", (), ("a", "b", 1, True), None]
        for bad in not_checks:
            with pytest.raises(InvalidRequest, match=r"^\[0\]: expected a Check"):
                await pw.check_many([bad])
    assert fake.seen == []


async def test_without_a_sidecar_on_outage_decides_and_says_so() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for on_outage in ("local", "open"):
        pw = Partywall(
            "http://there", "t", on_outage=on_outage, transport=httpx.MockTransport(refuse)
        )
        async with pw:
            decision = await pw.check("acme")
        assert (decision.allowed, decision.degraded) == (True, True)
    closed = Partywall(
        "http://there", "t", on_outage="closed", transport=httpx.MockTransport(refuse)
    )
    async with closed:
        with pytest.raises(SidecarUnavailable):
            await closed.check("acme")


# Tenants


async def test_a_tenant_is_read_typed() -> None:
    fake = Fake(tenants_acme=RECORD)
    async with fake.client() as pw:
        acme = await pw.get_tenant("acme")
    assert (acme.id, acme.tier, acme.status, str(acme)) == ("acme", "pro", "active", "acme")
    assert (acme.domains, acme.features) == (("app.acme.example",), ("advanced-analytics",))
    assert acme.created_at == datetime(2030, 1, 31, 12, tzinfo=UTC)


async def test_what_put_tenant_leaves_out_is_not_sent() -> None:
    fake = Fake(tenants_acme=RECORD)
    async with fake.client() as pw:
        await pw.put_tenant("acme", tier="pro")
        await pw.put_tenant("acme", tier="pro", name="A", domains=(), status="suspended")
    assert fake.paths == ["PUT /v1/tenants/acme"] * 2
    assert [json.loads(request.content) for request in fake.seen] == [
        {"tier": "pro"},
        {"tier": "pro", "name": "A", "domains": [], "status": "suspended"},
    ]


async def test_a_domain_has_a_tenant_or_none() -> None:
    fake = Fake(tenants={"tenants": [RECORD], "next_cursor": None})
    async with fake.client() as pw:
        assert await pw.tenant_of_domain("app.acme.example") == "acme"
        fake.answers["tenants"] = {"tenants": [], "next_cursor": None}
        assert await pw.tenant_of_domain("a&b=c") is None
    assert fake.paths[0] == "GET /v1/tenants?domain=app.acme.example&page_size=1"
    assert fake.seen[1].url.params["domain"] == "a&b=c"


async def test_an_id_that_is_none_reaches_no_path() -> None:
    fake = Fake()
    async with fake.client() as pw:
        for bad in ("../tokens", "a/b", "", ".."):
            with pytest.raises(InvalidRequest, match="expected a tenant's id"):
                await pw.get_tenant(bad)
            with pytest.raises(InvalidRequest, match="expected a tenant's id"):
                await pw.put_tenant(bad, tier="pro")
    assert fake.seen == []


# Configuration


@pytest.mark.parametrize(
    "options",
    [
        {"sidecar": "there"},
        {"token": "a b"},
        {"deadline": 0},
        {"timeout": -1},
        {"on_outage": "maybe"},
    ],
)
def test_an_argument_that_cannot_be_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        Partywall(**options)


async def test_what_the_environment_lacks_shows_at_the_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PARTYWALL_TOKEN", raising=False)
    pw = Partywall("http://there")
    for use in (pw.__aenter__, lambda: pw.check("acme"), lambda: pw.get_tenant("acme")):
        with pytest.raises(ConfigurationError, match="there is no token"):
            await use()
    with pytest.raises(ConfigurationError, match="there is no token"):
        _ = pw.permits
    monkeypatch.setenv("PARTYWALL_TOKEN", "t")
    async with pw:
        pass


# Event loops


def test_one_client_serves_one_loop_after_another() -> None:
    fake = Fake()
    pw = fake.client()

    async def use() -> object:
        assert await pw.check("acme")
        assert pw.permits is pw.permits
        return pw.permits

    assert len({id(permits) for permits in [asyncio.run(use()) for _ in range(3)]}) == 3
    gc.collect()  # what closed loops left behind goes silently
    assert len(pw._sessions) == 1


def test_loops_at_the_same_time_do_not_disturb_each_other() -> None:
    fake = Fake()
    pw = fake.client()
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def permits() -> object:
        return pw.permits

    async def close() -> None:
        await pw.aclose()

    try:
        first = [loop.run_until_complete(permits()) for loop in (one, other)]
        again = [loop.run_until_complete(permits()) for loop in (one, other)]
        assert first == again
        assert first[0] is not first[1]
        one.run_until_complete(close())
        assert other.run_until_complete(permits()) is first[1]
        other.run_until_complete(close())
    finally:
        one.close()
        other.close()


async def test_a_closed_client_opens_again_when_it_is_used() -> None:
    fake = Fake()
    pw = fake.client()
    async with pw:
        before = pw.permits
    assert await pw.check("acme")
    assert pw.permits is not before
    await pw.aclose()
    await pw.aclose()


async def test_closing_gives_back_what_was_not_spent() -> None:
    fake = Fake()
    fake.generous = True
    async with fake.client() as pw:
        for _ in range(3):
            await pw.check("acme")
    assert fake.granted > 3
    assert fake.returned == fake.granted - 3


async def test_a_substitute_is_heeded_from_one_call_to_the_next() -> None:
    real, one, other = Fake(check=DECISION), Fake(check=DECISION), Fake(check=DECISION)

    async def ask(pw: Partywall) -> None:
        await pw.check("acme", dry_run=True)

    pw = real.client()
    await ask(pw)
    before = pw.permits
    with substitute(one.transport):
        await ask(pw)
        assert pw.permits is not before
        with substitute(other.transport):
            await ask(pw)
        await ask(Partywall())
    await ask(pw)
    await pw.aclose()
    assert [len(fake.seen) for fake in (real, one, other)] == [2, 2, 1]


async def test_a_substitute_is_not_closed_with_a_client() -> None:
    closed: list[str] = []

    class Watched(httpx.MockTransport):
        async def aclose(self) -> None:
            closed.append("it")

    answer: Callable[[httpx.Request], httpx.Response] = Fake().answer
    with substitute(Watched(answer)):
        async with Partywall() as pw:
            await pw.check("acme")
    assert closed == []
