"""What is no check gets its problem, and harms nobody."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.asking import check, fresh_tenant, put_tenant, until
from tests.support.api import fields_of, problem_of
from tests.support.sidecar import Sidecar

MAX_BODY = 1024 * 1024
PATHS = ["/v1/check", "/v1/checks"]

BAD_IDS = [
    "",
    "x" * 129,
    ".acme",
    "-acme",
    "_acme",
    "acme\n",
    "\nacme",
    "acme ",
    "ac me",
    "acmé",
    "\u0430" * 4,  # Cyrillic
    "\uff11\uff12",  # full width digits, decimal to Python
    "acme\x00",
    "a}:{b",
    "{s1}",
    "*",
    "acme:ring:requests",
    "acme\r\nDEL pw",
    "'; DROP TABLE tenants; --",
    "' OR '1'='1",
    "../../etc/passwd",
    "%61cme",
    "🏠",
]


@pytest.mark.parametrize("tenant", BAD_IDS)
async def test_bad_tenant_ids(asked: httpx.AsyncClient, tenant: str) -> None:
    answer = await asked.post("/v1/check", json={"tenant": tenant})
    assert fields_of(answer) == ["tenant"]
    answer = await asked.post("/v1/checks", json=[{"tenant": tenant}])
    assert fields_of(answer) == ["[0].tenant"]


@pytest.mark.parametrize("limit", [*BAD_IDS, "x" * 65])
async def test_bad_names_of_limits(asked: httpx.AsyncClient, limit: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.post("/v1/check", json={"tenant": acme, "limit": limit})
    assert fields_of(answer) == ["limit"]


async def test_ids_that_look_like_more_are_only_ids(asked: httpx.AsyncClient) -> None:
    """Letters, digits, dots, dashes and underscores may spell anything: each has its own window."""
    ids = [
        "DROP-TABLE-tenants",
        "null",
        "0",
        "true",
        "1e9",
        "a.b",
        "a-b",
        "a_b",
        "A.b",
        "instances",
    ]
    for tenant in ids:
        await put_tenant(asked, tenant)
        assert (await check(asked, tenant))["remaining"] == 4, tenant
    gone = await asyncio.gather(*(asked.delete(f"/v1/tenants/{tenant}") for tenant in ids))
    assert {answer.status_code for answer in gone} == {204}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"tenant": "a", "cost": true}', "cost"),
        ('{"tenant": "a", "cost": 1.0}', "cost"),
        ('{"tenant": "a", "cost": 1e0}', "cost"),
        ('{"tenant": "a", "cost": "1"}', "cost"),
        ('{"tenant": "a", "cost": null}', "cost"),
        ('{"tenant": "a", "cost": 0}', "cost"),
        ('{"tenant": "a", "cost": -1}', "cost"),
        ('{"tenant": "a", "cost": 9007199254740992}', "cost"),
        ('{"tenant": "a", "cost": 18446744073709551617}', "cost"),
        (f'{{"tenant": "a", "cost": {"9" * 10_000}}}', "cost"),
        ('{"tenant": "a", "dry_run": 1}', "dry_run"),
        ('{"tenant": "a", "dry_run": "true"}', "dry_run"),
        ('{"tenant": "a", "limit": null}', "limit"),
        ('{"tenant": "a", "limit": 5}', "limit"),
        ('{"tenant": null}', "tenant"),
        ('{"tenant": 5}', "tenant"),
        ('{"tenant": ["a"]}', "tenant"),
        ('{"tenant": {"a": 1}}', "tenant"),
        ("{}", "tenant"),
        ('{"cost": 1}', "tenant"),
        ('{"tenant": "a", "costs": 1}', "costs"),
        ('{"tenant": "a", "Cost": 1}', "Cost"),
        ('{"tenant": "a", "degraded": false}', "degraded"),
    ],
)
async def test_wrong_fields_are_named(asked: httpx.AsyncClient, body: str, field: str) -> None:
    answer = await asked.post("/v1/check", content=body)
    assert fields_of(answer) == [field]
    answer = await asked.post("/v1/checks", content=f'[{{"tenant": "a"}}, {body}]')
    assert fields_of(answer) == [f"[1].{field}"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[",
        b"null",
        b"5",
        b'"acme"',
        b'{"tenant": "a"',
        b'{"tenant": "a"} {"tenant": "a"}',
        b'{"tenant": "a",}',
        b"{'tenant': 'a'}",
        b"tenant=a",
        b'{"tenant": "a", "cost": NaN}',
        b'{"tenant": "a", "cost": Infinity}',
        b'{"tenant": "a\xff"}',
        b'{"ten\xc3ant": "a"}',
        b'{"tenant": "\\ud800"}',
        b'{"tenant": "\\udc00\\ud800"}',
        b'\xef\xbb\xbf{"tenant": "a"}',
        '{"tenant": "a"}'.encode("utf-16"),
        b"\x00" * 100,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"tenant":' * 100_000,
        b'{"tenant":' + b"[" * 200_000,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_no_check_at_all(asked: httpx.AsyncClient, path: str, body: bytes) -> None:
    for content in (body, b"[" + body + b"]"):
        answer = await asked.post(path, content=content)
        if path == "/v1/checks" and content.replace(b" ", b"") == b"[]":
            assert answer.json() == []
        else:
            assert len(fields_of(answer)) == 1


async def test_one_is_no_list_and_a_list_is_not_one(asked: httpx.AsyncClient) -> None:
    assert fields_of(await asked.post("/v1/checks", content='{"tenant": "a"}')) == ["body"]
    assert fields_of(await asked.post("/v1/check", content='[{"tenant": "a"}]')) == ["body"]


async def test_a_long_mistake_is_told_briefly(asked: httpx.AsyncClient) -> None:
    for key in ("k" * 500_000, "k" * 500_000 + " - at `$"):
        answer = await asked.post("/v1/check", json={key: 1})
        problem_of(answer, 422, "invalid-request")
        assert len(answer.content) < 2000


@pytest.mark.parametrize("path", PATHS)
async def test_bodies_have_a_largest_size(asked: httpx.AsyncClient, path: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    one = f'{{"tenant": "{acme}"}}' if path == "/v1/check" else f'[{{"tenant": "{acme}"}}]'
    largest = one.ljust(MAX_BODY).encode()
    assert (await asked.post(path, content=largest)).status_code == 200
    assert (await asked.post(path, content=in_chunks(largest, 7001))).status_code == 200
    problem_of(await asked.post(path, content=largest + b" "), 413, "too-large")
    problem_of(await asked.post(path, content=in_chunks(largest + b" ", 7001)), 413, "too-large")
    problem_of(await asked.post(path, content=b" " * (8 * MAX_BODY)), 413, "too-large")
    assert (await check(asked, acme))["remaining"] == 2


async def test_a_thousand_and_one_are_too_many(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.post("/v1/checks", json=[{"tenant": acme}] * 1001)
    assert "1000" in problem_of(answer, 413, "too-large")["detail"]
    assert (await check(asked, acme))["remaining"] == 4


async def test_a_body_may_come_byte_by_byte(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    body = f'{{"tenant": "{acme}"}}'.encode()
    answer = await asked.post("/v1/check", content=in_chunks(body, 1))
    assert answer.json()["remaining"] == 4


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"])
async def test_wrong_methods(asked: httpx.AsyncClient, path: str, method: str) -> None:
    answer = await asked.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        problem_of(answer, 405, "method-not-allowed")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nope"},
        {"Authorization": "Bearer pw_0000_0000"},
        {"Authorization": f"Bearer {'x' * 20_000}"},
        {"Authorization": "Basic cHctdGVzdHMtYWRtaW4tdG9rZW4="},
        {"Authorization": "Bearer \xff\xfe".encode("latin-1")},
        {"X-Partywall-Token": "nope"},
        {"X-Partywall-Token": ""},
    ],
    ids=lambda headers: repr(headers)[:40],
)
async def test_wrong_tokens(
    asked_sidecar: Sidecar, path: str, headers: dict[str, str | bytes]
) -> None:
    async with httpx.AsyncClient(verify=False, base_url=asked_sidecar.url) as client:
        body = {"tenant": "a"} if path == "/v1/check" else [{"tenant": "a"}]
        answer = await client.post(path, json=body, headers=headers)
    problem_of(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_client_that_goes_away_does_no_harm(
    asked: httpx.AsyncClient, asked_sidecar: Sidecar
) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    url = httpx.URL(asked_sidecar.url)
    body = f'{{"tenant": "{acme}"}}'.encode()
    before = len(asked_sidecar.log)
    # The first part is a whole check, but not the whole body that was announced.
    for sent in (b"", body[:9], body, body + b" " * 70_000):
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = (
            f"POST /v1/check HTTP/1.1\r\nHost: partywall\r\n"
            f"Authorization: Bearer {asked_sidecar.admin_token}\r\nContent-Length: 100000\r\n\r\n"
        )
        writer.write(head.encode() + sent)
        await writer.drain()
        writer.transport.abort()

    async def decided() -> bool:
        return (await check(asked, acme, dry_run=True))["allowed"]

    await until(decided)
    assert (await check(asked, acme))["remaining"] == 4
    said = map(json.loads, asked_sidecar.log[before:].splitlines())
    assert {line["event"] for line in said} <= {"api.request"}  # the one that made the tenant


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
