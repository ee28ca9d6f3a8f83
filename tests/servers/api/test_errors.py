"""Whatever goes wrong is a problem, and never a 500."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from fastapi import APIRouter

from partywall_service.api import create_api
from partywall_service.api.body_limit import MAX_BODY
from partywall_service.embedded import PostgresServer
from partywall_service.ledger.migrations import upgrade
from tests.support.api import ADMIN, Caller, api_with, fields_of, hand_made_parts, problem_of

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/tenants/", "/v1/tenants/a/b", "/v1/tenants/a%2Fb", "/%00", "/é"],
)
async def test_an_unknown_path(admin: Caller, path: str) -> None:
    problem_of(await admin.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/tenants", "GET"),
        ("/v1/tenants/acme", "GET, PUT, DELETE"),
        ("/v1/tenants/acme/overrides/limits/requests", "PUT, DELETE"),
        ("/v1/tokens", "GET, POST"),
        ("/v1/audit", "GET"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(admin: Caller, path: str, allow: str) -> None:
    for method in ("PATCH", "OPTIONS", "TRACE", "BREW"):
        answer = await admin.http.request(method, path)
        problem_of(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"tier": "\xff"}',
        b"[" * 30_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"tier": ' + b"9" * 5_000 + b"}",
        b"[]",
        b'"pro"',
        b"7",
        b"null",
        b"true",
        b"NaN",
        b'{"tier": NaN}',
        b'{"tier": 1e999}',
        b'{"\\ud800": 1}',
        b'{"tier": "\\ud800"}',
        b'{"tier": "\\u0000"}',
    ],
)
async def test_a_body_that_is_none(admin: Caller, body: bytes) -> None:
    answer = await admin.http.put("/v1/tenants/acme", content=body, headers=JSON)
    assert fields_of(answer)
    assert len(answer.content) < 2_000  # what came is quoted, not sent back


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"],
)
async def test_a_body_of_another_kind(admin: Caller, content_type: str) -> None:
    answer = await admin.http.put(
        "/v1/tenants/acme", content=b'{"tier": "pro"}', headers={"content-type": content_type}
    )
    assert fields_of(answer) == ["body"]
    assert "application/json" in answer.json()["detail"]


async def test_many_faults_are_all_listed(admin: Caller) -> None:
    body = {"tier": 1, "name": 2, "domains": 3, "status": 4, "\N{SNOWMAN}": 5}
    answer = await admin.put("/v1/tenants/a b", body)
    assert fields_of(answer) == ["tenant", "tier", "name", "domains", "status", "\N{SNOWMAN}"]
    assert answer.json()["detail"].endswith("; and 3 more")


async def test_a_body_declared_too_large_is_not_read(admin: Caller) -> None:
    async def never() -> AsyncIterator[bytes]:
        pytest.fail("the body was asked for")
        yield b""

    for declared in (str(MAX_BODY + 1), "9" * 5_000):
        answer = await admin.http.put(
            "/v1/tenants/acme", content=never(), headers=JSON | {"content-length": declared}
        )
        problem_of(answer, 413, "too-large")


async def test_a_body_that_turns_out_too_large_is_refused(admin: Caller) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1024

    answer = await asyncio.wait_for(
        admin.http.put("/v1/tenants/acme", content=endless(), headers=JSON), 10
    )
    problem_of(answer, 413, "too-large")


async def test_the_largest_body_is_read(admin: Caller) -> None:
    body = json.dumps({"tier": "pro"}).encode().ljust(MAX_BODY)
    answer = await admin.http.put("/v1/tenants/acme", content=body, headers=JSON)
    assert answer.status_code == 201
    answer = await admin.http.put("/v1/tenants/acme", content=body + b" ", headers=JSON)
    problem_of(answer, 413, "too-large")


@pytest.mark.parametrize("hostile", ["'; DROP TABLE tenants; --", "\\", "%s", "{}", "$1", "\u202e"])
async def test_texts_are_kept_as_they_are(admin: Caller, hostile: str) -> None:
    await admin.put("/v1/tenants/acme", {"tier": "pro", "name": hostile})
    assert (await admin.get("/v1/tenants/acme")).json()["name"] == hostile


async def test_before_the_parts_are_there_it_says_so() -> None:
    answer = await Caller(create_api(), ADMIN).get("/v1/tenants")
    problem_of(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_without_postgresql_it_says_so_and_recovers(own_postgres: PostgresServer) -> None:
    upgrade(own_postgres.url)
    async with hand_made_parts(own_postgres.url) as parts:
        admin = Caller(api_with(parts), ADMIN)
        assert (await admin.put("/v1/tenants/acme", {"tier": "pro"})).status_code == 201
        own_postgres.stop()
        for answer in (
            await admin.get("/v1/tenants/acme"),
            await admin.put("/v1/tenants/acme", {"tier": "free"}),
            await admin.delete("/v1/tenants/acme"),
            await admin.with_token("pw_000000000000_" + "x" * 43).get("/v1/tenants"),
        ):
            problem_of(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert str(own_postgres.url) not in answer.text
        own_postgres.start()
        assert (await admin.get("/v1/tenants/acme")).json()["tier"] == "pro"


async def test_a_fault_of_our_own_is_logged_whole_and_told_without_its_insides() -> None:
    api = create_api()
    broken = APIRouter()

    @broken.get("/broken")
    async def fails() -> Any:
        raise RuntimeError("the secret inside")

    api.include_router(broken)
    with structlog.testing.capture_logs() as logs:
        answer = await Caller(api, ADMIN).get("/broken")
    problem = problem_of(answer, 500, "internal")
    assert "secret" not in json.dumps(problem)
    fault, request = logs
    assert [log["event"] for log in logs] == ["api.fault", "api.request"]
    assert fault["exc_info"]
    assert request["status"] == 500
    for log in logs:
        assert (log["method"], log["path"]) == ("GET", "/broken")
        assert log["request_id"] == answer.headers["x-request-id"]
