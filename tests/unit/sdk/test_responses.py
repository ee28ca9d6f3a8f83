"""What clients are answered in the app's place: statuses, problems, headers, and their shaping."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from partywall import (
    ConfigurationError,
    Denial,
    FeatureMissing,
    InvalidCredentials,
    KeysUnavailable,
    LimitExceeded,
    SidecarUnavailable,
    TenantConflict,
    TenantRefused,
    current_tenant,
)
from partywall.decision import QUOTA_EXCEEDED, Decision, Window
from partywall.protocol import Permit
from tests.unit.sdk.asgi import (
    FULL_MINUTE,
    SECOND,
    Sidecar,
    answering,
    denied,
    exchange,
    http_scope,
    reply,
    request,
    websocket_scope,
)


def refusing(*windows: Window, **more: Any) -> Sidecar:
    return Sidecar(lambda ask: denied(*windows, **more))


def resolving(error: Exception) -> Any:
    def resolve(scope: Any) -> str:
        raise error

    return resolve


async def raising(error: Exception) -> None:
    raise error


async def test_over_the_limit_is_429_with_all_that_a_client_needs():
    answer = await request(refusing(SECOND, FULL_MINUTE, upgrade="pro").governing(answering()))
    assert answer.status == 429
    assert answer.problem == {
        "type": QUOTA_EXCEEDED,
        "title": "Too many requests",
        "status": 429,
        "detail": "Limit 'requests' of tier 'free' has no room now; try again in 31 s.",
        "violated-policies": ["requests"],
        "tenant": "acme",
        "tier": "free",
        "upgrade": "pro",
    }
    assert answer["retry-after"] == "31"
    assert answer["ratelimit-policy"] == '"requests";q=100;w=60, "requests-1s";q=10;w=1'
    assert answer["ratelimit"] == '"requests";r=0;t=60, "requests-1s";r=9;t=1'
    assert answer["x-ratelimit-remaining"] == "0"


async def test_the_window_that_is_full_is_the_one_that_was_violated():
    full_second = Window(10, 1, 0, 0.9)
    roomy = Window(100, 60, 50, 30.0)
    answer = await request(refusing(full_second, roomy, retry_after=0.2).governing(answering()))
    assert answer.problem["violated-policies"] == ["requests-1s"]
    assert answer["retry-after"] == "1"
    assert "upgrade" not in answer.problem


async def test_a_cost_that_never_fits_names_no_moment():
    answer = await request(refusing(retry_after=None).governing(answering(), cost=500))
    assert answer.status == 429
    assert "retry-after" not in answer.names()
    assert "never admits a cost of 500" in answer.problem["detail"]


@pytest.mark.parametrize(
    ("reason", "status"),
    [("unknown-tenant", 403), ("tenant-suspended", 403), ("unavailable", 503)],
)
async def test_what_refuses_without_a_window_names_no_rate(reason, status):
    sidecar = Sidecar(lambda ask: Permit(False, "free", reason, seconds=0.4, retry_after=1.0))
    app = sidecar.governing(answering())
    for _ in range(2):
        answer = await request(app)
        assert answer.status == status
        assert answer.problem["type"] == f"urn:partywall:problem:{reason}"
        assert not any("ratelimit" in name for name in answer.names())
        assert ("retry-after" in answer.names()) == (status == 503)
    assert len(sidecar.seen) == 1


async def test_an_outage_that_is_closed_is_503_with_retry_after():
    sidecar = Sidecar()
    sidecar.away = SidecarUnavailable("away")
    app = sidecar.governing(answering(), client=sidecar.client(on_outage="closed"))
    answer = await request(app)
    assert answer.status == 503
    assert answer.problem["type"] == "urn:partywall:problem:unavailable"
    assert answer["retry-after"] == "1"


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (TenantConflict("the request names two different tenants"), 403, "tenant-conflict"),
        (TenantRefused("acme", "tenant-suspended"), 403, "tenant-suspended"),
        (TenantRefused("acme", "unknown-tenant"), 403, "unknown-tenant"),
        (InvalidCredentials("it has expired"), 401, "invalid-credentials"),
        (KeysUnavailable("no keys"), 503, "unavailable"),
        (SidecarUnavailable("no sidecar"), 503, "unavailable"),
    ],
)
async def test_a_tenant_that_cannot_be_told_is_refused_by_why(error, status, slug):
    sidecar = Sidecar()
    answer = await request(sidecar.governing(answering(), tenant=resolving(error)))
    assert answer.status == status
    assert answer.problem["type"] == f"urn:partywall:problem:{slug}"
    assert answer.problem["detail"]
    assert sidecar.seen == []
    if status == 401:
        assert answer["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_no_tenant_is_400():
    answer = await request(Sidecar().governing(answering()), tenant=None)
    assert answer.status == 400
    assert answer.problem["type"] == "urn:partywall:problem:no-tenant"


@pytest.mark.parametrize("upgrade", ["pro", None])
async def test_a_feature_that_is_missing_is_402_and_says_which_tier_has_it(upgrade):
    error = FeatureMissing("acme", "free", "sso", upgrade)
    answer = await request(Sidecar().governing(answering(lambda scope: raising(error))))
    assert answer.status == 402
    assert answer.problem["type"] == "urn:partywall:problem:feature-missing"
    assert (answer.problem["feature"], answer.problem["tier"]) == ("sso", "free")
    assert answer.problem.get("upgrade") == upgrade


async def test_head_gets_the_headers_and_no_body():
    app = refusing().governing(answering())
    get = await request(app)
    head = await request(app, method="HEAD")
    assert head.body == b""
    assert (head.status, head.headers) == (get.status, get.headers)


@pytest.mark.parametrize("sidecar", [Sidecar(), refusing()])
async def test_header_names_are_in_lower_case_as_asgi_wants_them(sidecar):
    start, *_ = await exchange(sidecar.governing(answering()), http_scope())
    assert all(name == name.lower() for name, _ in start["headers"])


async def test_a_response_that_is_changed_on_its_way_out_changes_no_other():
    """Outer middlewares may add to the list of headers they are given."""
    app = refusing().governing(answering())

    async def outer(scope, receive, send):
        async def adding(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-outer", b"1"))
            await send(message)

        await app(scope, receive, adding)

    for _ in range(3):
        assert (await request(outer))["x-outer"] == "1"


class TestShaping:
    async def shaped(self, on_denial: Any, **more: Any) -> Any:
        return await request(refusing().governing(answering(), on_denial=on_denial), **more)

    @pytest.mark.parametrize("later", [False, True])
    async def test_none_leaves_it(self, later):
        seen = []

        def leave(scope, denial):
            seen.append((scope["path"], denial.status, denial.decision.tenant))

        async def leave_later(scope, denial):
            leave(scope, denial)

        answer = await self.shaped(leave_later if later else leave)
        assert answer.status == 429
        assert seen == [("/", 429, "acme")]

    @pytest.mark.parametrize("later", [False, True])
    async def test_a_changed_denial_is_what_is_sent(self, later):
        def change(scope, denial):
            return Denial(
                420, {**denial.problem, "status": 420, "hint": "calm"}, {"X-Hint": "calm"}
            )

        async def change_later(scope, denial):
            return change(scope, denial)

        answer = await self.shaped(change_later if later else change)
        assert answer.status == 420
        assert answer.problem["hint"] == "calm"
        assert answer["x-hint"] == "calm"
        assert "retry-after" not in answer.names()

    @pytest.mark.parametrize("later", [False, True])
    async def test_an_asgi_app_answers_in_its_place(self, later):
        def answer_with(scope, denial):
            return PlainTextResponse("calm down", denial.status, headers=denial.headers)

        async def answer_later(scope, denial):
            return answer_with(scope, denial)

        answer = await self.shaped(answer_later if later else answer_with)
        assert (answer.status, answer.body) == (429, b"calm down")
        assert answer["retry-after"] == "31"

    async def test_every_denial_comes_by_also_those_without_a_tenant_and_the_apps_own(self):
        seen = []

        def note(scope, denial):
            seen.append((denial.status, current_tenant(None)))

        app = refusing().governing(answering(), on_denial=note)
        await request(app)
        await request(app)
        await request(app, tenant=None)
        decision = Decision(False, "acme", "free", "exports", 1, "limit-exceeded")
        own = answering(lambda scope: raising(LimitExceeded(decision)))
        await request(Sidecar().governing(own, on_denial=note))
        assert [status for status, _ in seen] == [429, 429, 400, 429]

    async def test_anything_else_is_an_error_that_says_what_was_expected(self):
        with pytest.raises(ConfigurationError, match="a Denial, an ASGI app or None; got 'no'"):
            await self.shaped(lambda scope, denial: "no")

    async def test_a_websocket_may_be_accepted_to_say_why(self):
        async def accept_and_close(scope, receive, send):
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4429, "reason": "calm down"})

        app = refusing().governing(answering(), on_denial=lambda scope, denial: accept_and_close)
        sent = await exchange(app, websocket_scope())
        assert sent[-1]["code"] == 4429

    async def test_a_shaped_denial_refuses_a_websocket_as_the_plain_one_does(self):
        app = refusing().governing(
            answering(), on_denial=lambda scope, denial: Denial(420, denial.problem)
        )
        sent = await exchange(app, websocket_scope(can_respond=True))
        assert reply(sent, "websocket.http.response").status == 420
