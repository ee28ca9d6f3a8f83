"""Each request has an id, which its answer and the log's lines about it carry."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog

from partywall.decision import Decision
from partywall_service.admission import CheckRequest, LimitClosed
from partywall_service.api import create_api
from partywall_service.api.auth import Principal
from partywall_service.api.hot import HotEndpoints
from partywall_service.api.request_ids import QUIET, Unavailable
from tests.support.logged_api import TOKEN

Line = dict[str, Any]
CHECK = {"tenant": "acme"}


class Known:
    """An authenticator that knows everybody."""

    def known(self, _: str) -> Principal:
        return Principal("host", None, "shop (0123456789ab)")


class Admission:
    """Admits everything, or fails."""

    error: Exception | None = None

    async def check(self, request: CheckRequest) -> Decision:
        if self.error is not None:
            raise self.error
        return Decision(True, request.tenant, "free", request.limit, request.cost)

    async def check_many(self, requests: list[CheckRequest]) -> list[Decision]:
        return [await self.check(request) for request in requests]


class Quotas:
    """Quotas that cannot be told of."""

    async def consume(self, *_: Any) -> None:
        raise RuntimeError("a defect")


class Asked:
    """The hot endpoints, and what is logged of them."""

    def __init__(self, *, log_all: bool = False) -> None:
        self.admission = Admission()
        self.hot = HotEndpoints(create_api(), log_all=log_all)
        parts = SimpleNamespace(
            authenticator=Known(), admission=self.admission, quotas=Quotas(), policy=None
        )
        self.hot.open(parts)  # type: ignore[arg-type] # a stand-in

    async def post(self, path: str, body: Any, **headers: str | bytes) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.hot),
            base_url="http://sidecar",
            headers={"Authorization": "Bearer token"},
        ) as client:
            raw = [
                (name.encode(), value.encode() if isinstance(value, str) else value)
                for name, value in headers.items()
            ]
            return await client.post(path, json=body, headers=raw)


@pytest.fixture(scope="module")
def lines() -> dict[str, list[Line]]:
    """What a process logs of its requests, by their ids; see `tests.support.logged_api`."""
    command = [sys.executable, "-m", "tests.support.logged_api"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "in-the-query" not in done.stderr
    told: dict[str, list[Line]] = {}
    for line in map(json.loads, done.stderr.splitlines()):
        told.setdefault(line.get("request_id", ""), []).append(line)
    return told


def test_every_line_of_a_request_says_whose_it_is(lines: dict[str, list[Line]]) -> None:
    ours, *others = lines["lines"]
    assert (ours["event"], ours["path"]) == ("ours", "its own")  # what a line says itself stays
    assert [(line["event"], line["path"]) for line in others] == [
        (words, "/v1/tenants/acme/lines")
        for words in ("a library's", "a thread's", "a task's, meanwhile")
    ]
    for line in lines["lines"]:
        assert (line["method"], line["tenant"]) == ("GET", "acme")
        assert {"timestamp", "level"} <= set(line)
    assert others[0]["more"] == 1


def test_a_task_that_outlives_its_request_does_not_name_it(lines: dict[str, list[Line]]) -> None:
    (line,) = lines[""]
    assert line["event"] == "a task's, afterwards"
    assert not {"tenant", "path", "method"} & set(line)


def test_a_tenants_own_token_names_it_and_a_failure_gets_a_line(
    lines: dict[str, list[Line]],
) -> None:
    said, request = lines["mine"]
    assert (said["event"], said["tenant"]) == ("its own", "globex")
    assert (request["event"], request["level"]) == ("api.request", "warning")
    assert (request["status"], request["tenant"]) == (503, "globex")
    assert request["actor"] == "globex's token"
    assert request["milliseconds"] >= 0


def test_a_change_gets_a_line_with_who_made_it(lines: dict[str, list[Line]]) -> None:
    (line,) = lines["revoke"]
    assert (line["event"], line["level"], line["status"]) == ("api.request", "info", 200)
    assert (line["method"], line["actor"]) == ("POST", "admin")


def test_no_line_has_a_tokens_secret_whoever_put_it_there(lines: dict[str, list[Line]]) -> None:
    fault, request = lines["broken"]
    assert "RuntimeError: what is pw_0123456789ab_..." in fault["exception"]
    assert request["status"] == 500
    assert lines["revoke"][0]["path"] == "/v1/tokens/pw_0123456789ab_..."
    assert lines["revoke-admin"][0]["path"] == "/v1/tokens/..."
    assert lines["in-a-path"][0]["path"] == "/v1/tenants/pw_0123456789ab_..."
    (in_an_id,) = lines["pw_0123456789ab_..."]
    assert in_an_id["status"] == 404
    assert TOKEN.secret not in json.dumps(lines)


async def test_a_check_has_its_own_id_alone() -> None:
    asked = Asked()
    for path, body in (("/v1/check", CHECK), ("/v1/checks", [CHECK])):
        assert "x-request-id" not in (await asked.post(path, body)).headers
        answer = await asked.post(path, body, **{"X-Request-ID": "mine-1"})
        assert answer.headers.get_list("x-request-id") == ["mine-1"]


async def test_what_a_check_is_refused_by_has_an_id_always() -> None:
    asked = Asked()
    answer = await asked.post("/v1/check", {"tenant": 7})
    assert answer.status_code == 422
    assert len(answer.headers["x-request-id"]) == 32
    answer = await asked.post("/v1/check", {}, **{"X-Request-ID": "mine-2"})
    assert answer.headers["x-request-id"] == "mine-2"


@pytest.mark.parametrize("path", ["/v1/check", "/openapi.json"])
@pytest.mark.parametrize("given", [b"", b"two words", b'a"b', b"a'b", b"x" * 129, b"t\xe9st"])
async def test_an_id_that_could_confuse_is_replaced(path: str, given: bytes) -> None:
    answer = await Asked().post(path, {}, **{"X-Request-ID": given})
    made = answer.headers["x-request-id"]
    assert len(made) == 32
    assert made.isalnum()
    again = await Asked().post(path, {}, **{"X-Request-ID": given})
    assert again.headers["x-request-id"] != made


@pytest.mark.parametrize(
    ("path", "body", "tenant"),
    [
        ("/v1/check", CHECK, "acme"),
        ("/v1/authz", None, "acme"),
        ("/v1/checks", [CHECK, CHECK], "acme"),
        ("/v1/checks", [CHECK, {"tenant": "globex"}], None),
        ("/v1/tenants/acme/quotas/consume", {"items": {"users": 1}}, "acme"),
    ],
)
async def test_a_fault_of_a_hot_endpoint_names_its_tenant(
    path: str, body: Any, tenant: str | None
) -> None:
    asked = Asked()
    asked.admission.error = RuntimeError("a defect")
    with structlog.testing.capture_logs() as logs:
        answer = await asked.post(path, body, **{"X-Tenant-ID": "acme"})
    (line,) = logs
    assert answer.status_code == 500
    assert (line["event"], line["path"]) == ("api.fault", path)
    assert line.get("tenant") == tenant
    assert line["request_id"] == answer.headers["x-request-id"]


async def test_an_outage_is_told_of_and_not_of_each_check() -> None:
    asked = Asked()
    asked.admission.error = LimitClosed("the limit is closed")
    with structlog.testing.capture_logs() as logs:
        answers = [await asked.post("/v1/check", CHECK) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert logs[0]["event"] == "api.unavailable"
    assert (logs[0]["tenant"], logs[0]["answers"]) == ("acme", 1)
    assert logs[0]["request_id"] == answers[0].headers["x-request-id"]


def test_a_line_about_an_outage_says_how_many_answers_it_is_for() -> None:
    now = 100.0
    unavailable = Unavailable(lambda: now)
    scope = {"type": "http", "method": "POST", "path": "/v1/check", "headers": []}
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            unavailable.tell(dict(scope), "Redis is away")
        now += QUIET
        unavailable.tell(dict(scope), "Redis is away")
    assert [(line["answers"], line["cause"]) for line in logs] == [
        (1, "Redis is away"),
        (5, "Redis is away"),
    ]


async def test_changes_of_quotas_get_lines_where_all_requests_do() -> None:
    asked = Asked(log_all=True)
    with structlog.testing.capture_logs() as logs:
        await asked.post("/v1/check", CHECK)
        answer = await asked.post("/v1/tenants/acme/quotas/consume", {"items": {}})
    (line,) = logs
    assert (line["event"], line["status"], line["tenant"]) == ("api.request", 422, "acme")
    assert line["actor"] == "shop (0123456789ab)"
    assert line["request_id"] == answer.headers["x-request-id"]


async def test_requests_that_only_read_get_lines_where_all_do() -> None:
    with structlog.testing.capture_logs() as logs:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_api(log_all=True)), base_url="http://sidecar"
        ) as client:
            await client.get("/healthz")
    assert [(line["event"], line["path"], line["status"]) for line in logs] == [
        ("api.request", "/healthz", 200)
    ]
