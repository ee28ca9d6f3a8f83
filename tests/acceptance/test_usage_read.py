"""What was decided is read at once: by the tenant, in the report, on the command line."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from partywall_service.cli import app
from tests.acceptance.asking import check, checks, fresh_tenant, new_token, put_tenant
from tests.support.api import problem_of
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

POLICY = """
default_tier = "free"

[tiers.free.limits]
requests = "5/minute"
observed = { rate = "2/minute", enforce = false }

[tiers.free.quotas]
users = 5
seats = 3

[tiers.pro]
extends = "free"

[resources.seats]
durable = false
"""


@pytest.fixture(scope="module")
def served(test_run: TestRun) -> Iterator[Sidecar]:
    """One sidecar for all; each test brings a tenant of its own."""
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest.fixture
async def client(served: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    async with served.client() as made:
        yield made


async def decide(client: httpx.AsyncClient, tenant: str) -> dict[str, int]:
    """Some decisions of both limits; what they came to, by meter."""
    asked: list[dict[str, Any]] = [{"tenant": tenant, "limit": "requests"}] * 7
    asked += [{"tenant": tenant, "limit": "observed", "cost": 2}] * 3
    for one in await checks(client, asked):
        assert one["degraded"] is False
    await check(client, tenant, dry_run=True)
    return {
        "limits.requests.admitted": 5,
        "limits.requests.denied": 2,
        "limits.observed.admitted": 1,
        "limits.observed.would_deny": 2,
    }


async def usage(client: httpx.AsyncClient, tenant: str, **params: Any) -> dict[str, float]:
    """What each meter came to in the last hours."""
    answer = await client.get(f"/v1/tenants/{tenant}/usage", params=params)
    assert answer.status_code == 200, answer.text
    sums: dict[str, float] = {}
    for one in answer.json()["points"]:
        is_level = one["meter"].startswith("quotas.")
        sums[one["meter"]] = one["value"] + (0 if is_level else sums.get(one["meter"], 0))
    return sums


async def test_decisions_are_in_the_usage_that_is_read_next(client: httpx.AsyncClient) -> None:
    for tenant in (fresh_tenant(), (await put_tenant(client, fresh_tenant()))["tenant"]):
        expected = await decide(client, tenant)
        for step in ("minute", "hour", "day"):
            assert await usage(client, tenant, step=step) == expected


async def test_levels_are_there_of_resources_of_both_kinds(client: httpx.AsyncClient) -> None:
    tenant = fresh_tenant()
    path = f"/v1/tenants/{tenant}/quotas/consume"
    answer = await client.post(path, json={"items": {"users": 2, "seats": 3}})
    assert answer.json()["allowed"]
    expected = {"quotas.users.used": 2, "quotas.seats.used": 3}
    for step in ("minute", "hour", "day"):
        assert await usage(client, tenant, step=step, meter="quotas") == expected


async def test_a_tenant_s_token_reads_its_own_alone(
    served: Sidecar, client: httpx.AsyncClient
) -> None:
    tenant, other = fresh_tenant(), fresh_tenant()
    expected = await decide(client, tenant)
    tokens = {one: (await new_token(client, f"tenant:{one}"))["token"] for one in (tenant, other)}
    async with served.client(token=tokens[tenant]) as own:
        assert await usage(own, tenant) == expected
        problem_of(await own.get("/v1/reports/usage"), 403, "forbidden")
    async with served.client(token=tokens[other]) as foreign:
        answer = await foreign.get(f"/v1/tenants/{tenant}/usage")
        problem_of(answer, 403, "forbidden")
        assert await usage(foreign, other) == {}


async def test_the_report_says_the_same_in_json_in_csv_and_on_the_command_line(
    served: Sidecar, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = fresh_tenant()
    await put_tenant(client, tenant, tier="pro", name="=cmd()")
    await decide(client, tenant)
    since = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")

    params = {"tier": "pro", "from": since}
    answer = await client.get("/v1/reports/usage", params=params)
    (first,) = (one for one in answer.json()["tenants"] if one["tenant"] == tenant)
    assert (first["admitted"], first["denied"], first["would_deny"]) == (6, 2, 2)
    assert first["limits_hit"] == ["requests"]
    answer = await client.get("/v1/reports/usage", params={**params, "format": "csv"})
    rows = {one["tenant"]: one for one in csv.DictReader(io.StringIO(answer.text))}
    assert (rows[tenant]["name"], rows[tenant]["denied"]) == ("'=cmd()", "2")

    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", served.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    arguments = ["report", "--from", "2d", "--tier", "pro", "--limit-hits", "--format", "json"]
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0, told.stderr
    (line,) = (one for one in json.loads(told.stdout)["tenants"] if one["tenant"] == tenant)
    assert line == first
