"""PartywallMiddleware before raw ASGI apps: what passes, what is governed, what an app sees."""

import asyncio
from contextvars import copy_context
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from partywall import (
    ConfigurationError,
    Denied,
    FeatureMissing,
    LimitExceeded,
    PartywallMiddleware,
    Rule,
    SidecarUnavailable,
    TenantConflict,
    current_tenant,
)
from partywall.decision import Decision
from partywall.governed import SCOPE_KEY
from partywall.protocol import Permit, TierFacts
from partywall.tenants import FromHeader, FromPath, FromSubdomain, chain
from tests.unit.sdk.asgi import (
    BOTH_FAMILIES,
    SECOND,
    Sidecar,
    answering,
    exchange,
    granted,
    http_scope,
    raising,
    refusing,
    reply,
    request,
    tenant_seen,
)


async def test_an_admitted_request_runs_as_its_tenant_and_its_response_says_what_is_left():
    sidecar = Sidecar()
    sidecar.tiers = {"free": TierFacts(features=("search",))}
    app = sidecar.governing(
        answering(lambda scope: f"{current_tenant().tier} {current_tenant().features}")
    )
    answer = await request(app)
    assert answer.status == 200
    assert answer.body == b"free ('search',)"
    assert answer["x-app"] == "1"
    assert answer["ratelimit-policy"] == '"requests";q=100;w=60'
    assert answer["ratelimit"] == '"requests";r=99;t=60'
    assert answer["x-ratelimit-limit"] == "100"
    assert answer["x-ratelimit-remaining"] == "99"
    assert answer["x-ratelimit-reset"] == "60"
    assert current_tenant(None) is None


async def test_a_denied_request_never_reaches_the_app():
    app = Sidecar(refusing).governing(answering(lambda scope: pytest.fail("it was reached")))
    answer = await request(app)
    assert answer.status == 429
    assert answer["retry-after"] == "31"


@pytest.mark.parametrize("kind", ["lifespan", "x.another.protocol"])
async def test_what_is_neither_http_nor_a_websocket_passes_as_it_is(kind):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive))
        await send({"type": "x.message"})

    scope = {"type": kind}
    governed = Sidecar().governing(app)

    async def receive() -> Any:
        raise AssertionError

    sent = []

    async def send(message) -> None:
        sent.append(message)

    await governed(scope, receive, send)
    assert seen == [(scope, receive)]
    assert sent == [{"type": "x.message"}]
    assert scope == {"type": kind}


async def test_an_exempt_path_asks_nobody_and_has_no_tenant():
    sidecar = Sidecar(refusing)
    app = sidecar.governing(answering(tenant_seen), exempt=["/health"])
    answer = await request(app, "/health")
    assert (answer.status, answer.body, answer.names() & BOTH_FAMILIES) == (200, b"None", set())
    assert sidecar.seen == []


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("ietf", {name for name in BOTH_FAMILIES if name.startswith("ratelimit")}),
        ("legacy", {name for name in BOTH_FAMILIES if name.startswith("x-")}),
        ("both", BOTH_FAMILIES),
        ("none", set()),
    ],
)
@pytest.mark.parametrize("answer", [granted, refusing])
async def test_responses_carry_the_families_of_headers_that_were_wanted(family, names, answer):
    app = Sidecar(answer).governing(answering(), headers=family)
    said = await request(app)
    assert said.names() & BOTH_FAMILIES == names
    assert ("retry-after" in said.names()) == (said.status == 429)


async def test_two_middlewares_of_one_client_each_render_a_held_denial_their_own_way():
    sidecar = Sidecar(refusing)
    client = sidecar.client()
    one = sidecar.governing(answering(), client=client, headers="ietf")
    other = sidecar.governing(answering(), client=client, headers="legacy")
    for _ in range(2):
        assert "ratelimit" in (await request(one)).names()
        assert "x-ratelimit-limit" in (await request(other)).names()
    assert len(sidecar.seen) == 1


async def test_a_streamed_response_is_not_held_back():
    """The app makes its second chunk only when the first one has arrived."""
    arrived = asyncio.Event()
    chunks = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await arrived.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": False})

    async def send(message) -> None:
        if message.get("body"):
            chunks.append(message["body"])
            arrived.set()

    await asyncio.wait_for(Sidecar().governing(app)(http_scope(), asyncio.Event().wait, send), 30)
    assert chunks == [b"first", b"second"]


async def test_a_disconnect_reaches_the_app():
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    received = [{"type": "http.request"}, {"type": "http.disconnect"}]
    assert await exchange(Sidecar().governing(app), http_scope(), *received) == []


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("error", [ValueError("the app's"), asyncio.CancelledError()])
async def test_an_exception_of_the_app_passes_untouched(begun, error):
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200})
        raise error

    with pytest.raises(type(error)) as caught:
        await request(Sidecar().governing(app))
    assert caught.value is error
    assert current_tenant(None) is None


async def test_an_app_sends_from_a_thread_as_channels_does():
    async def app(scope, receive, send):
        send_here = async_to_sync(send)  # it warns where calling it would give no coroutine
        await sync_to_async(send_here)({"type": "http.response.start", "status": 200})
        await sync_to_async(send_here)({"type": "http.response.body", "body": b"ok"})

    answer = await request(Sidecar().governing(app))
    assert answer.names() >= BOTH_FAMILIES
    assert answer.body == b"ok"


async def test_background_tasks_run_as_the_tenant():
    ran = []

    def note() -> None:  # in a thread
        ran.append(current_tenant().id)

    def home(_):
        return PlainTextResponse("ok", background=BackgroundTask(note))

    app = Sidecar().governing(Starlette(routes=[Route("/", home)]))
    assert (await request(app)).status == 200
    assert ran == ["acme"]


async def test_nothing_of_a_request_is_left_for_the_next_on_the_same_task():
    app = Sidecar().governing(answering(tenant_seen), exempt=["/health"])
    before = dict(copy_context())
    for tenant in ["acme", "beta", "acme"]:
        assert (await request(app, tenant=tenant)).body == tenant.encode()
        assert (await request(app, "/health", tenant)).body == b"None"
        assert dict(copy_context()) == before


class TestDeniedRaisedInTheApp:
    DECISION = Decision(
        False, "acme", "free", "exports", 1, "limit-exceeded", retry_after=2.5, windows=(SECOND,)
    )

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (LimitExceeded(DECISION, "pro"), 429),
            (FeatureMissing("acme", "free", "sso", "pro"), 402),
            (TenantConflict("two of them"), 403),
            (SidecarUnavailable("away", 1.5), 503),
        ],
    )
    async def test_it_is_answered_with_the_headers_of_what_was_charged(self, error, status):
        answer = await request(Sidecar().governing(answering(lambda scope: raising(error))))
        assert answer.status == status
        assert '"requests";q=100;w=60' in answer["ratelimit-policy"]
        if status == 429:
            assert answer["ratelimit-policy"] == '"exports";q=10;w=1, "requests";q=100;w=60'
            assert answer["retry-after"] == "3"
            assert answer["x-ratelimit-limit"] == "10"
        elif status == 503:
            assert answer["retry-after"] == "2"
        else:
            assert "retry-after" not in answer.names()

    async def test_a_further_limit_that_denied_is_named_once(self):
        def charge(scope: Any) -> Any:
            scope[SCOPE_KEY].add(self.DECISION)
            return raising(LimitExceeded(self.DECISION))

        answer = await request(Sidecar().governing(answering(charge)))
        assert answer["ratelimit-policy"] == '"exports";q=10;w=1, "requests";q=100;w=60'

    async def test_a_further_limit_that_admitted_is_in_the_headers(self):
        admitted = Decision(True, "acme", "free", "exports", 1, windows=(SECOND,))
        app = answering(lambda scope: scope[SCOPE_KEY].add(admitted))
        answer = await request(Sidecar().governing(app))
        assert answer["ratelimit-policy"] == '"requests";q=100;w=60, "exports";q=10;w=1'
        assert answer["x-ratelimit-remaining"] == "9"

    async def test_it_passes_when_the_response_has_begun(self):
        error = LimitExceeded(self.DECISION)

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            raise error

        with pytest.raises(LimitExceeded) as caught:
            await request(Sidecar().governing(app))
        assert caught.value is error

    async def test_one_of_the_apps_own_kind_passes(self):
        class NotToday(Denied):
            pass

        def refuse(scope: Any) -> str:
            raise NotToday

        for app in (
            Sidecar().governing(answering(refuse)),
            Sidecar().governing(answering(), tenant=refuse),
        ):
            with pytest.raises(NotToday):
                await request(app)


class TestObservingOnly:
    async def test_nothing_is_denied_and_headers_are_set(self):
        app = Sidecar(refusing).governing(answering(tenant_seen), enforce=False)
        for _ in range(2):
            answer = await request(app)
            assert (answer.status, answer.body) == (200, b"acme")
            assert answer["ratelimit"] == '"requests";r=0;t=60'
            assert "retry-after" not in answer.names()

    @pytest.mark.parametrize("tenant", [None, "not an id"])
    async def test_a_request_without_a_tenant_passes_without_one(self, tenant):
        app = answering(lambda scope: (scope[SCOPE_KEY], current_tenant(None)))
        answer = await request(Sidecar().governing(app, enforce=False), tenant=tenant)
        assert (answer.status, answer.body) == (200, b"(None, None)")

    @pytest.mark.parametrize("error", [TenantConflict("two"), SidecarUnavailable("away")])
    async def test_a_tenant_that_cannot_be_told_passes_without_one(self, error):
        async def resolve(scope):
            raise error

        app = Sidecar().governing(answering(tenant_seen), enforce=False, tenant=resolve)
        assert (await request(app)).body == b"None"

    @pytest.mark.parametrize("reason", ["tenant-suspended", "unknown-tenant", "unavailable"])
    async def test_a_refused_tenant_passes(self, reason):
        app = Sidecar(lambda ask: Permit(False, reason=reason, retry_after=1.0)).governing(
            answering(tenant_seen), enforce=False
        )
        answer = await request(app)
        assert (answer.status, answer.body) == (200, b"acme")

    async def test_what_the_app_itself_refuses_is_refused(self):
        error = FeatureMissing("acme", "free", "sso", None)
        app = answering(lambda scope: raising(error))
        assert (await request(Sidecar().governing(app, enforce=False))).status == 402


class TestResolving:
    @pytest.mark.parametrize("tenant", [None, "", "no spaces", "-acme", "a" * 129])
    async def test_no_tenant_is_400(self, tenant):
        answer = await request(Sidecar().governing(answering()), tenant=tenant)
        assert answer.status == 400

    async def test_a_callable_of_the_scope_is_a_resolver_awaited_or_not(self):
        async def later(scope):
            await asyncio.sleep(0)
            return "acme"

        for resolver in (lambda scope: "acme", later):
            app = Sidecar().governing(answering(tenant_seen), tenant=resolver)
            assert (await request(app, tenant=None)).body == b"acme"

    async def test_resolvers_that_disagree_are_403(self):
        app = Sidecar().governing(
            answering(), tenant=[FromHeader("X-Tenant-ID"), FromSubdomain("example.com")]
        )
        scope = http_scope(tenant=None, headers={"Host": "beta.example.com", "X-Tenant-ID": "acme"})
        assert reply(await exchange(app, scope)).status == 403

    async def test_a_lone_resolver_that_gives_no_text_is_named(self):
        def numbered(scope):
            return 7

        with pytest.raises(ConfigurationError, match=r"numbered.* must give .* it gave 7"):
            await request(Sidecar().governing(answering(), tenant=numbered))

    async def test_an_error_of_the_apps_own_resolver_passes(self):
        app = Sidecar().governing(answering(), tenant=lambda scope: scope["no such key"])
        with pytest.raises(KeyError):
            await request(app)

    @pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one], lambda one: chain([one])])
    async def test_a_stripped_path_is_what_rules_exemptions_and_the_app_see(self, wrap):
        sidecar = Sidecar()
        app = sidecar.governing(
            answering(lambda scope: f"{current_tenant(None)} {scope['root_path']}"),
            tenant=wrap(FromPath("/t/{tenant}", strip=True)),
            rules=[Rule("/exports/*", limit="exports", cost=5)],
            exempt=["/health"],
        )
        assert (await request(app, "/t/acme/exports/7", None)).body == b"acme /t/acme"
        (ask,) = sidecar.asks
        assert (ask.tenant, ask.limit, ask.cost) == ("acme", "exports", 5)
        assert (await request(app, "/t/acme/health", None)).body == b"None /t/acme"
        assert (await request(app, "/health", None)).body == b"None "
        assert (await request(app, "/orders", None)).status == 400
        assert len(sidecar.seen) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"headers": "all"}, "ietf, legacy, both, none"),
        ({"limit": ""}, "a limit's name"),
        ({"limit": 5}, "a limit's name"),
        ({"cost": 0}, "a cost from 1"),
        ({"cost": True}, "a cost from 1"),
        ({"cost": 1.0}, "a cost from 1"),
        ({"exempt": "/health"}, "a list of paths"),
        ({"exempt": ["health"]}, "beginning with /"),
        ({"rules": Rule("/x")}, "a list of Rule"),
        ({"rules": [{"path": "/x"}]}, "a list of Rule"),
        ({"tenant": []}, "at least one"),
        ({"tenant": None}, "a resolver"),
        ({"tenant": "X-Tenant-ID"}, "a resolver"),
        ({"tenant": ["X-Tenant-ID"]}, "a resolver"),
        ({"on_denial": "403"}, "on_denial to be callable"),
        ({"sidecar": "http://127.0.0.1:8080"}, "either client"),
        ({"token": "t"}, "either client"),
        ({"client": None, "on_outage": "shrug"}, "local, open, closed"),
        ({"client": None, "deadline": 0}, "deadline in seconds"),
        ({"client": None, "sidecar": "8080"}, "http://"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_with_what_was_expected(options, expected):
    sidecar = Sidecar()
    settings = {"tenant": FromHeader("X-Tenant-ID"), "client": sidecar.client(), **options}
    with pytest.raises(ConfigurationError, match=expected):
        PartywallMiddleware(answering(), **settings)
