"""Usage over REST: points, pages, CSV, and who may read them."""

import csv
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from partywall_service.usage.source import Point
from partywall_service.usage.spans import instant_of, minute_of
from tests.support.api import (
    ADMIN,
    Caller,
    HandMadeParts,
    api_with,
    fields_of,
    hand_made_parts,
    problem_of,
)
from tests.support.run import TestRun

ADMITTED, DENIED = "limits.requests.admitted", "limits.requests.denied"
FLIGHT = "requests.in_flight_seconds"
NOW = datetime.now(UTC)
MINUTE = minute_of(NOW)
HOUR = MINUTE - MINUTE % 60 - 120
"""The first minute of the hour before the last."""


def at(minute: int) -> str:
    return instant_of(minute).isoformat().replace("+00:00", "Z")


def acme(minute: int, meter: str, value: int) -> Point:
    return Point("acme", HOUR + minute, meter, value)


@asynccontextmanager
async def filled(database_url: str) -> AsyncIterator[HandMadeParts]:
    """Acme is registered; half of what it did is rolled up, half waits."""
    async with hand_made_parts(database_url) as made:
        await made.ledger.put_tenant("acme", tier="pro", name="=cmd()", actor="test")
        rolled = [(0, ADMITTED, 3), (0, DENIED, 1), (7, ADMITTED, 2), (7, FLIGHT, 1_500_000)]
        await made.usage.store.upsert([acme(*one) for one in rolled])
        await made.usage.store.upsert([Point("other", HOUR, ADMITTED, 1)])
        waits = [(7, ADMITTED, 2), (8, ADMITTED, 4), (61, ADMITTED, 5)]
        made.usage.source.points = [acme(*one) for one in waits]
        yield made


@pytest.fixture(scope="module")
def database(test_run: TestRun) -> Iterator[str]:
    """One for all tests that only read."""
    url = test_run.create_database()
    yield url
    test_run.drop_database(url)


@pytest.fixture
async def admin(database: str) -> AsyncIterator[Caller]:
    async with filled(database) as made:
        yield Caller(api_with(made), ADMIN)


@pytest.fixture
async def parts(database_url: str) -> AsyncIterator[HandMadeParts]:
    """The same, for tests that register tenants or change what is used."""
    async with filled(database_url) as made:
        yield made


@pytest.fixture
def own(parts: HandMadeParts) -> Caller:
    return Caller(api_with(parts), ADMIN)


async def points_of(caller: Caller, **params: Any) -> list[tuple[str, str, float]]:
    """All points, through every page."""
    found: list[tuple[str, str, float]] = []
    while True:
        answer = await caller.get("/v1/tenants/acme/usage", **params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"points", "next_cursor"}
        assert len(page["points"]) <= params.get("page_size", 1000)
        found += [(one["start"], one["meter"], one["value"]) for one in page["points"]]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def test_points_by_the_step_from_both_stores(admin: Caller) -> None:
    assert await points_of(admin, step="hour", **{"from": at(HOUR)}) == [
        (at(HOUR), ADMITTED, 9),
        (at(HOUR), DENIED, 1),
        (at(HOUR), FLIGHT, 1.5),
        (at(HOUR + 60), ADMITTED, 5),
    ]
    day = HOUR - HOUR % 1440
    days = await points_of(admin, step="day", **{"from": at(day - 1440)})
    assert sum(value for _, meter, value in days if meter == ADMITTED) == 14
    minutes = {"step": "minute", "from": at(HOUR + 7), "to": at(HOUR + 9)}
    assert await points_of(admin, **minutes) == [
        (at(HOUR + 7), ADMITTED, 2),
        (at(HOUR + 7), FLIGHT, 1.5),
        (at(HOUR + 8), ADMITTED, 4),
    ]


async def test_the_step_that_from_is_in_is_the_first(admin: Caller) -> None:
    """Who notes the time, does something and asks from then on finds it."""
    second = {"from": at(HOUR + 7)[:-3] + "15Z", "to": at(HOUR + 7)[:-3] + "16Z"}
    expected = {"minute": 2, "hour": 9}
    for step, admitted in expected.items():
        (point,) = await points_of(admin, step=step, meter=ADMITTED, **second)
        assert point[2] == admitted
        answer = await admin.get("/v1/tenants/acme/usage", step=step, format="csv", **second)
        assert answer.status_code == 200
        assert f"{ADMITTED},{admitted}\r\n" in answer.text
    (row,) = (await admin.get("/v1/reports/usage", **second)).json()["tenants"]
    assert row["admitted"] == 2


async def test_the_last_day_by_the_hour_is_what_is_shown_when_nothing_is_asked(
    admin: Caller,
) -> None:
    assert sum(value for _, meter, value in await points_of(admin) if meter == ADMITTED) == 14


async def test_pages_hold_all_of_it_once(admin: Caller) -> None:
    asked = {"step": "minute", "from": at(HOUR - 5000)}
    everything = await points_of(admin, **asked)
    assert len(everything) == 6
    for size in (1, 2, 3, 6):
        assert await points_of(admin, page_size=size, **asked) == everything


async def test_a_meter_is_asked_for_by_its_name_or_the_beginning_of_it(admin: Caller) -> None:
    for meter, expected in (
        (ADMITTED, {ADMITTED}),
        ("limits.requests", {ADMITTED, DENIED}),
        ("limits", {ADMITTED, DENIED}),
        ("limits.request", set()),
        ("requests", {FLIGHT}),
    ):
        assert {name for _, name, _ in await points_of(admin, meter=meter)} == expected


async def test_csv_is_all_of_it_whatever_the_page_size(admin: Caller) -> None:
    asked = {"step": "minute", "from": at(HOUR - 5000), "to": at(MINUTE)}
    answer = await admin.get("/v1/tenants/acme/usage", format="csv", page_size=1, **asked)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    name = f"usage-acme-minutes-{instant_of(HOUR - 5000):%Y%m%dT%H%MZ}"
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{name}-')
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["start", "meter", "value"]
    expected = await points_of(admin, **asked)
    assert [(start, meter, float(value)) for start, meter, value in rows] == expected


async def test_the_level_of_a_quota_is_as_it_is_now(own: Caller) -> None:
    answer = await own.put("/v1/tenants/acme/quotas/users", {"used": 3})
    assert answer.status_code == 200
    for step in ("minute", "hour", "day"):
        points = await points_of(own, step=step, meter="quotas")
        assert [(meter, value) for _, meter, value in points] == [("quotas.users.used", 3)]


async def test_who_may_read_usage(own: Caller, parts: HandMadeParts) -> None:
    admin = own
    await admin.put("/v1/tenants/other", {"tier": "free"})
    path = "/v1/tenants/acme/usage"
    acme, other = await admin.caller("tenant:acme"), await admin.caller("tenant:other")
    assert (await acme.get(path)).json() == (await admin.get(path)).json()
    assert (await (await admin.caller("host")).get(path)).status_code == 200
    for report in (path, "/v1/tenants/nobody/usage"):
        problem_of(await other.get(report), 403, "forbidden")
    for caller in (acme, other):
        problem_of(await caller.get("/v1/reports/usage"), 403, "forbidden")
    # Also where our own statement forgets whose it is: row-level security.
    start, end = instant_of(HOUR), instant_of(HOUR + 60)
    assert await parts.usage.store.points("acme", start, end, "hour", (), scope="other") == []


async def test_a_tenant_that_nobody_knows(admin: Caller, database: str) -> None:
    problem_of(await admin.get("/v1/tenants/ghost/usage"), 404, "unknown-tenant")
    past = {"from": at(HOUR - 3000), "to": at(HOUR - 2000)}
    problem_of(await admin.get("/v1/tenants/ghost/usage", **past), 404, "unknown-tenant")
    async with hand_made_parts(database, default_tier="free") as parts:
        answer = await Caller(api_with(parts), ADMIN).get("/v1/tenants/ghost/usage")
        assert answer.json() == {"points": [], "next_cursor": None}


async def test_a_period_that_is_none_is_told(admin: Caller) -> None:
    wrong: list[tuple[dict[str, str], str]] = [
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-11-01"}, "from"),
        ({"to": "2026-11-01T00:00:00"}, "to"),
        ({"from": "2026-11-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "from"),
        ({"from": "2099-01-01T00:00:00Z"}, "from"),
        ({"from": "1969-12-31T23:59:59Z"}, "from"),
        ({"to": "9999-12-31T23:59:59Z"}, "to"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
    ]
    for path in ("/v1/tenants/acme/usage", "/v1/reports/usage"):
        for params, field in wrong:
            assert fields_of(await admin.get(path, **params)) == [field]


async def test_parameters_that_make_no_sense_are_told(admin: Caller) -> None:
    wrong: dict[str, object] = {
        "step": "week",
        "format": "xlsx",
        "meter": "a b",
        "cursor": "x",
        "page_size": 0,
    }
    for name, value in wrong.items():
        assert fields_of(await admin.get("/v1/tenants/acme/usage", **{name: value})) == [name]


async def test_too_many_steps_are_refused_with_what_to_narrow(admin: Caller) -> None:
    asked = {"from": "2026-01-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
    answer = await admin.get("/v1/tenants/acme/usage", step="minute", **asked)
    assert fields_of(answer) == ["from"]
    assert "got 437,760: ask for a shorter period, or for longer steps" in answer.json()["detail"]
    assert (await admin.get("/v1/tenants/acme/usage", step="hour", **asked)).status_code == 200


async def test_the_epoch_is_no_edge(admin: Caller) -> None:
    asked = {"from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z"}
    assert (await admin.get("/v1/tenants/acme/usage", **asked)).json()["points"] == []
    short = {"to": "1970-01-01T00:00:01Z"}
    assert (await admin.get("/v1/tenants/acme/usage", **short)).status_code == 200
    assert (await admin.get("/v1/reports/usage", **short)).status_code == 200


async def report(caller: Caller, **params: Any) -> httpx.Response:
    answer = await caller.get("/v1/reports/usage", **params)
    assert answer.status_code == 200, answer.text
    return answer


async def test_the_report_has_a_line_for_each_tenant(admin: Caller) -> None:
    answer = (await report(await admin.caller("host"))).json()
    midnight = (NOW - timedelta(days=30)).strftime("%Y-%m-%dT00:00:00Z")
    assert answer["from"] == midnight
    assert answer["next_cursor"] is None
    (acme,) = answer["tenants"]  # as nobody registered the other, and no tier serves it
    quotas = acme.pop("quotas")
    assert acme == {
        "tenant": "acme",
        "name": "=cmd()",
        "tier": "pro",
        "status": "active",
        "admitted": 14,
        "denied": 1,
        "would_deny": 0,
        "degraded": 0,
        "limits": [
            {"limit": "requests", "admitted": 14, "denied": 1, "would_deny": 0, "degraded": 0}
        ],
        "limits_hit": ["requests"],
        "requests": {"in_flight_seconds": 1.5, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0},
        "jobs": {
            "started": 0,
            "succeeded": 0,
            "failed": 0,
            "run_seconds": 0,
            "wait_seconds": 0,
        },
    }
    assert [(one["resource"], one["used"], one["limit"]) for one in quotas] == [
        ("users", 0, 50),
        ("storage", 0, None),
    ]


async def test_the_report_comes_in_pages_and_by_tier(own: Caller) -> None:
    admin = own
    for tenant in ("b", "c", "d"):
        await admin.put(f"/v1/tenants/{tenant}", {"tier": "free"})
    seen: list[str] = []
    params: dict[str, Any] = {"page_size": 3}
    while True:
        page = (await report(admin, **params)).json()
        seen += [one["tenant"] for one in page["tenants"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ["acme", "b", "c", "d"]
    free = (await report(admin, tier="free")).json()
    assert [one["tenant"] for one in free["tenants"]] == ["b", "c", "d"]


async def test_the_report_as_csv_runs_nothing_in_a_spreadsheet(admin: Caller) -> None:
    answer = await report(admin, format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    (acme,) = csv.DictReader(io.StringIO(answer.text))
    assert acme["name"] == "'=cmd()"
    assert (acme["tenant"], acme["limits_hit"]) == ("acme", "requests")
    assert (acme["limits.requests.admitted"], acme["denied"]) == ("14", "1")
    assert (acme["requests.in_flight_seconds"], acme["quotas.storage.limit"]) == ("1.5", "")
    assert "" not in {acme["quotas.users.used"], acme["quotas.users.limit"]}
