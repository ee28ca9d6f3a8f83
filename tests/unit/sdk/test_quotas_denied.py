"""What a client of the host app sees where the app lets a `QuotaExceeded` through."""

import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from partywall import Partywall, PartywallMiddleware, Quota, QuotaExceeded, QuotaOutcome
from partywall.quotas.denial import over_quota
from partywall.tenants import FromHeader
from partywall.testing import FakeSidecar
from tests.support.starlette_client import TestClient
from tests.unit.sdk.quota_tiers import TIERS

LIMITED: Any = {**TIERS, "free": {**TIERS["free"], "limits": {"requests": "100/minute"}}}

pw = Partywall()


async def sign_up(request: Request) -> PlainTextResponse:
    async with pw.reserve(request.query_params.get("for", "acme"), users=3):
        return PlainTextResponse("signed up")


app = Starlette(routes=[Route("/", sign_up, methods=["POST"])])
app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"))


def test_it_is_429_and_says_what_had_no_room() -> None:
    with FakeSidecar(LIMITED):
        client = TestClient(app, headers={"X-Tenant": "acme"})
        assert client.post("/").text == "signed up"
        answer = client.post("/")
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-ratelimit-remaining"] == "98"
    assert "retry-after" not in answer.headers  # what is held does not refill
    assert answer.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": "Tenant 'acme' has no room for 3 of 'users': 3 of 5 used.",
        "violated-policies": ["users"],
        "tenant": "acme",
        "tier": "free",
    }


def test_the_tier_is_not_told_of_another_tenant_than_the_requests() -> None:
    with FakeSidecar(LIMITED):
        client = TestClient(app, headers={"X-Tenant": "acme"})
        client.post("/?for=other")
        denial = client.post("/?for=other").json()
    assert denial["tenant"] == "other"
    assert "tier" not in denial


async def denial_of(**amounts: int) -> QuotaExceeded:
    """A denial of a tenant that has used all of its e-mails and users."""
    async with FakeSidecar(TIERS), Partywall() as client:
        await client.consume("acme", emails=10, users=5)
        with pytest.raises(QuotaExceeded) as raised:
            await client.consume("acme", **amounts)
        return raised.value


async def test_it_may_be_tried_again_when_all_that_had_no_room_refills() -> None:
    exceeded = await denial_of(emails=1)
    resets_at = exceeded.outcome.quotas[0].resets_at
    assert resets_at is not None
    seconds = int(over_quota(exceeded).headers["Retry-After"])
    assert abs(seconds - math.ceil(resets_at.timestamp() - time.time())) <= 60


async def test_no_moment_is_named_where_there_is_none() -> None:
    assert over_quota(await denial_of(emails=1, users=1)).headers == {}
    assert over_quota(await denial_of(emails=11)).headers == {}


def test_a_period_that_has_just_ended_by_this_clock_is_a_second_away() -> None:
    past = Quota("emails", "count", 10, 10, 0, 0, "day", datetime(1970, 1, 2, tzinfo=UTC), 1)
    exceeded = QuotaExceeded(QuotaOutcome(False, "acme", ("emails",), (past,)), {"emails": 1})
    assert over_quota(exceeded).headers == {"Retry-After": "1"}
    unknown = QuotaExceeded(QuotaOutcome(False, "acme", ("emails",)), {})
    assert over_quota(unknown).headers == {}
    assert str(unknown) == "tenant 'acme' has no room for 'emails'"
