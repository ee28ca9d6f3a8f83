"""FastAPI dependencies: further limits, features, and what the app's OpenAPI says of them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from partywall import (
    ConfigurationError,
    Decision,
    LimitExceeded,
    PartywallMiddleware,
    current_tenant,
)
from partywall.fastapi import DENIALS, document, feature, limit
from partywall.tenants import FromHeader
from partywall.testing import FakeSidecar
from tests.support.starlette_client import TestClient

TIERS: Any = {
    "free": {"limits": {"requests": "100/minute", "exports": "5/hour", "calls": "2/second"}},
    "pro": {"extends": "free", "limits": {"exports": "50/hour"}, "features": ["analytics"]},
}

pytest_plugins = ["partywall.pytest_plugin"]


def rows(request: Request) -> int:
    return int(request.query_params["rows"])


def an_app(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"), **options)

    @app.post("/exports")
    async def exports(
        decision: Annotated[Decision, Depends(limit("exports", cost=2))],
    ) -> dict[str, Any]:
        return {"tenant": str(current_tenant()), "allowed": decision.allowed}

    @app.get("/rows", dependencies=[Depends(limit("exports", cost=rows))])
    def some_rows() -> str:
        return "some"

    @app.get("/nope", dependencies=[Depends(limit("nope"))])
    def nope() -> str:
        return "unlimited"

    @app.get("/analytics", dependencies=[Depends(feature("analytics"))])
    def analytics() -> str:
        return "numbers"

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.websocket("/calls")
    async def calls(socket: WebSocket, _: Annotated[Decision, Depends(limit("calls"))]) -> None:
        await socket.accept()
        await socket.send_text(str(current_tenant()))
        await socket.close()

    return app


def client(app: FastAPI | None = None, tenant: str = "acme") -> TestClient:
    return TestClient(app or an_app(), headers={"X-Tenant": tenant})


# Limits


def test_a_route_is_charged_a_further_limit_and_its_headers_say_so() -> None:
    with FakeSidecar(TIERS) as sidecar:
        answer = client().post("/exports")
    assert answer.json() == {"tenant": "acme", "allowed": True}
    assert answer.headers["ratelimit-policy"] == '"requests";q=100;w=60, "exports";q=5;w=3600'
    assert answer.headers["ratelimit"] == '"requests";r=99;t=60, "exports";r=3;t=3600'
    assert answer.headers["x-ratelimit-remaining"] == "3"
    assert sidecar.checks == [("acme", "requests", 1, True), ("acme", "exports", 2, True)]


def test_over_the_further_limit_the_answer_is_429_with_what_would_have_admitted_it() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = client()
        statuses = [app.post("/exports").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        denied = app.post("/exports")
        assert denied.headers["content-type"] == "application/problem+json"
        assert denied.headers["retry-after"] == "3600"
        assert (denied.json()["violated-policies"], denied.json()["upgrade"]) == (
            ["exports"],
            "pro",
        )
        sidecar.tenant("acme", tier="pro")
        assert app.post("/exports").status_code == 200


def test_a_cost_may_hang_on_the_request() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = client()
        assert app.get("/rows?rows=4").status_code == 200
        assert app.get("/rows?rows=2").status_code == 429
        assert app.get("/rows?rows=1").status_code == 200
        with pytest.raises(ConfigurationError, match="expected a cost from 1"):
            app.get("/rows?rows=0")
    assert [check.cost for check in sidecar.checks if check.limit == "exports"] == [4, 2, 1]


def test_a_limit_that_no_tier_names_lets_everything_pass() -> None:
    with FakeSidecar(TIERS):
        assert client().get("/nope").status_code == 200


def test_a_suspended_tenant_that_got_so_far_is_refused() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = FastAPI()
        app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"))

        def suspended_meanwhile() -> None:
            sidecar.suspend("acme")

        @app.get("/", dependencies=[Depends(suspended_meanwhile), Depends(limit("exports"))])
        def nothing() -> None:
            return None

        answer = client(app).get("/")
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:partywall:problem:tenant-suspended"


def test_one_dependency_charges_once_a_request_wherever_it_stands() -> None:
    exports = limit("exports")
    app = FastAPI(dependencies=[Depends(exports)])
    app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"))

    @app.get("/")
    async def read(decision: Annotated[Decision, Depends(exports)]) -> int | None:
        return decision.remaining

    with FakeSidecar(TIERS):
        assert client(app).get("/").json() == 4


def test_a_websocket_is_charged_before_it_is_accepted() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = client()
        for _ in range(2):
            with app.websocket_connect("/calls") as socket:
                assert socket.receive_text() == "acme"
        with pytest.raises(WebSocketDisconnect), app.websocket_connect("/calls"):
            pass
    assert [check.allowed for check in sidecar.checks if check.limit == "calls"] == [
        True,
        True,
        False,
    ]


def test_an_app_may_answer_a_denial_itself() -> None:
    app = an_app()

    @app.exception_handler(LimitExceeded)
    async def answer(request: Request, exc: LimitExceeded) -> JSONResponse:
        return JSONResponse({"upgrade": exc.upgrade}, 429)

    with FakeSidecar(TIERS) as sidecar:
        sidecar.deny("acme", "exports")
        assert client(app).post("/exports").json() == {"upgrade": "pro"}


@pytest.mark.parametrize("how", ["mounted", "wrapped"])
def test_an_app_that_answers_every_exception_itself_does_not_hide_a_denial(how: str) -> None:
    """Starlette's outermost layer, here inside the middleware, sends a 500 and raises again."""
    inner = FastAPI()
    outer = FastAPI()

    @inner.get("/exports", dependencies=[Depends(limit("exports"))])
    async def exports() -> str:
        return "done"

    outer.mount("/inner", inner)
    app = PartywallMiddleware(
        outer if how == "mounted" else inner, tenant=FromHeader("X-Tenant-ID")
    )
    path = "/inner/exports" if how == "mounted" else "/exports"
    tiers = {"free": {"limits": {"requests": "9/minute", "exports": "1/minute"}}}
    with FakeSidecar(tiers), TestClient(app, headers={"X-Tenant-ID": "acme"}) as asking:
        assert asking.get(path).json() == "done"
        denied = asking.get(path)
        assert (denied.status_code, denied.json()["violated-policies"]) == (429, ["exports"])


def test_where_nothing_is_enforced_it_charges_and_denies_nothing() -> None:
    with FakeSidecar(TIERS):
        app = client(an_app(enforce=False))
        answers = [app.post("/exports") for _ in range(4)]
        assert [answer.json()["allowed"] for answer in answers] == [True, True, False, False]
        assert answers[-1].headers["ratelimit"].startswith('"requests";r=96')
        assert app.get("/analytics").status_code == 200


# Features


def test_a_feature_that_the_tier_has_opens_the_route() -> None:
    with FakeSidecar(TIERS) as sidecar:
        sidecar.tenant("acme", tier="pro")
        assert client().get("/analytics").text == '"numbers"'


def test_a_feature_that_the_tier_lacks_is_402_with_the_tier_that_has_it() -> None:
    with FakeSidecar(TIERS):
        answer = client().get("/analytics")
    assert answer.status_code == 402
    document = answer.json()
    assert (document["feature"], document["tier"], document["upgrade"]) == (
        "analytics",
        "free",
        "pro",
    )


def test_a_feature_that_no_tier_has_is_402_without_an_upgrade() -> None:
    app = FastAPI(dependencies=[Depends(feature("nowhere"))])
    app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"))
    app.get("/")(lambda: None)
    with FakeSidecar(TIERS):
        answer = client(app).get("/")
    assert answer.status_code == 402
    assert "upgrade" not in answer.json()


# Outages


def test_in_an_outage_a_tenant_keeps_the_features_that_it_was_seen_to_have() -> None:
    with FakeSidecar(TIERS) as sidecar, client() as app:
        sidecar.tenant("acme", tier="pro")
        assert app.get("/analytics").status_code == 200
        sidecar.fail()
        assert app.get("/analytics").status_code == 200


def test_in_an_outage_whether_a_stranger_has_a_feature_cannot_be_said() -> None:
    with FakeSidecar(TIERS) as sidecar:
        sidecar.fail()
        answer = client().get("/analytics")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_a_limit_that_cannot_be_decided_and_is_closed_then_is_503() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = FastAPI()
        app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"), on_outage="closed")

        def an_outage_begins() -> None:
            sidecar.fail()

        @app.get("/", dependencies=[Depends(an_outage_begins), Depends(limit("exports"))])
        def nothing() -> None:
            return None

        assert client(app).get("/").status_code == 503


# Mistakes


@pytest.mark.parametrize("path", ["/rows?rows=1", "/analytics"])
def test_without_the_middleware_the_error_says_what_to_add(path: str) -> None:
    with pytest.raises(ConfigurationError, match="add PartywallMiddleware to the app"):
        client(an_app(exempt=["/rows", "/analytics"])).get(path)


def test_where_nothing_is_enforced_a_request_without_a_tenant_passes() -> None:
    with FakeSidecar(TIERS) as sidecar:
        app = TestClient(an_app(enforce=False))
        assert app.get("/rows?rows=100").status_code == 200
        assert app.get("/analytics").status_code == 200
    assert sidecar.checks == []


@pytest.mark.parametrize(
    "declare",
    [
        lambda: limit("a b"),
        lambda: limit(rows),  # type: ignore[arg-type] # a mistake, to be told of
        lambda: limit("exports", cost=0),
        lambda: limit("exports", cost=True),
        lambda: feature(""),
        lambda: feature(None),  # type: ignore[arg-type] # a mistake, to be told of
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(declare: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        declare()


def test_without_fastapi_the_error_says_what_to_install() -> None:
    program = "import sys; sys.modules['fastapi'] = None; import partywall.fastapi"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr.rstrip().endswith(
        "ImportError: partywall.fastapi needs FastAPI: pip install 'partywall[fastapi]'"
    )


# OpenAPI


def statuses(app: FastAPI) -> dict[str, set[str]]:
    """The denials that each operation of the document names."""
    return {
        f"{method} {path}": set(operation["responses"]) & {str(status) for status in DENIALS}
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }


def test_the_document_names_denials_at_governed_routes_and_402_where_a_feature_is_needed() -> None:
    app = an_app(exempt=["/plain"])
    document(app)
    inner = APIRouter(prefix="/inner", dependencies=[Depends(feature("analytics"))])

    def needing(_: Annotated[None, Depends(feature("analytics"))]) -> None:
        return None

    @inner.get("/{item}")
    def read(item: str) -> str:
        return item

    @app.put("/deep", dependencies=[Depends(needing)])
    def deep() -> None:
        return None

    @app.get("/deep", responses={429: {"description": "In my own words."}})
    def shallow() -> None:
        return None

    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    app.include_router(outer)

    always = {"400", "403", "429", "503"}
    for _ in range(2):
        assert statuses(app) == {
            "post /exports": always,
            "get /rows": always,
            "get /nope": always,
            "get /analytics": always | {"402"},
            "get /plain": set(),
            "put /deep": always | {"402"},
            "get /deep": always,
            "get /outer/inner/{item}": always | {"402"},
        }
    described = app.openapi()["paths"]
    assert described["/deep"]["get"]["responses"]["429"]["description"] == "In my own words."
    shown = described["/rows"]["get"]["responses"]["429"]
    assert "application/problem+json" in shown["content"]
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} < set(shown["headers"])


def test_the_document_that_the_app_serves_has_them() -> None:
    app = an_app(exempt=["/openapi.json"])
    document(app)
    served = TestClient(app).get("/openapi.json").json()
    assert "402" in served["paths"]["/analytics"]["get"]["responses"]


def test_an_app_that_is_wrapped_from_outside_is_documented_too() -> None:
    app = FastAPI()
    app.get("/")(lambda: None)
    document(app)
    assert statuses(app) == {"get /": {"400", "403", "429", "503"}}


def test_denials_may_be_named_by_hand() -> None:
    app = FastAPI(responses=DENIALS)
    app.get("/")(lambda: None)
    assert statuses(app) == {"get /": {"400", "402", "403", "429", "503"}}


def test_what_a_429_says_is_what_the_document_says(fake_sidecar: FakeSidecar) -> None:
    fake_sidecar.deny("acme")
    answer = client().get("/plain")
    shown = DENIALS[429]
    schema = shown["content"][answer.headers["content-type"]]["schema"]
    assert set(answer.json()) <= set(schema["properties"])
    assert {name.lower() for name in shown["headers"]} <= set(answer.headers)


# docs/fastapi.md


def test_the_pages_snippets_run() -> None:
    page = Path(__file__).parents[3] / "docs" / "fastapi.md"
    apps = []
    for snippet in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        names: dict[str, Any] = {}
        exec(compile(snippet, str(page), "exec"), names)
        apps.append(names.get("app") or names["router"])
    first, routes, handled, _ = apps
    tiers: Any = {
        "free": {"limits": dict.fromkeys(("exports", "rows", "reports", "calls"), "4/minute")}
    }
    with FakeSidecar(tiers):
        answers = TestClient(first, headers={"X-Tenant-ID": "acme"})
        assert answers.get("/hello").text == '"hello acme"'
        assert answers.post("/exports").status_code == 429
        assert answers.get("/analytics").status_code == 402
        assert TestClient(first).get("/health").status_code == 200
        assert "402" in first.openapi()["paths"]["/analytics"]["get"]["responses"]

        app = an_app()
        app.include_router(routes, prefix="/more")
        app.exception_handlers.update(handled.exception_handlers)
        answers = client(app)
        assert answers.get("/more/rows?rows=5").status_code == 429
        assert answers.get("/more/rows").status_code == 200
        assert answers.get("/more/report").json() == 3
        with answers.websocket_connect("/more/calls"):
            pass
        assert answers.get("/analytics").json() == {"buy": None}
