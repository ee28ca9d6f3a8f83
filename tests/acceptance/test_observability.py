"""What a real sidecar's log and metrics say, and what they never say."""

import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from tests.acceptance.asking import check, checks, fresh_tenant, new_token, put_tenant, until
from tests.conftest import SidecarFactory
from tests.support.sidecar import Sidecar

Line = dict[str, Any]
MOST_NAMED = 20


def lines_of(one: Sidecar) -> list[Line]:
    return [json.loads(line) for line in one.log.splitlines() if line.startswith("{")]


async def lines_where(one: Sidecar, fits: Callable[[Line], bool]) -> list[Line]:
    """Lines that fit, once there are any: they are written when the answer has been sent."""

    async def found() -> list[Line]:
        return [line for line in lines_of(one) if fits(line)]

    return (await until(found))[0]


async def test_a_change_is_logged_with_who_made_it_and_a_check_is_not(
    asked_sidecar: Sidecar, asked: httpx.AsyncClient
) -> None:
    acme, mine = fresh_tenant(), f"it-{fresh_tenant()}"
    answer = await asked.put(
        f"/v1/tenants/{acme}", json={"tier": "free"}, headers={"X-Request-ID": mine}
    )
    assert answer.headers["x-request-id"] == mine
    (line,) = await lines_where(asked_sidecar, lambda line: line.get("request_id") == mine)
    told = {name: line[name] for name in ("event", "tenant", "actor", "status", "method", "path")}
    assert told == {
        "event": "api.request",
        "tenant": acme,
        "actor": "admin",
        "status": 201,
        "method": "PUT",
        "path": f"/v1/tenants/{acme}",
    }
    await check(asked, acme)
    assert (await asked.get(f"/v1/tenants/{acme}")).headers["x-request-id"]
    last = (await asked.delete(f"/v1/tenants/{acme}")).headers["x-request-id"]
    await lines_where(asked_sidecar, lambda line: line.get("request_id") == last)
    about = [line["method"] for line in lines_of(asked_sidecar) if line.get("tenant") == acme]
    assert about == ["PUT", "DELETE"]


async def test_no_token_is_ever_in_the_log(sidecar: SidecarFactory) -> None:
    one = sidecar(env={"PARTYWALL_LOG_REQUESTS": "true"})
    acme = fresh_tenant()
    async with one.client() as admin:
        await put_tenant(admin, acme)
        made = [await new_token(admin, scope) for scope in ("host", f"tenant:{acme}", "admin")]
    tokens = [token["token"] for token in made]
    bad = tokens[0][:-1] + ("A" if tokens[0][-1] != "A" else "B")
    for token in (one.admin_token, *tokens, bad, tokens[0][:-4]):
        async with one.client(token) as caller:
            for path in (
                f"/v1/tenants/{acme}",
                f"/v1/tokens?name={token}",
                "/v1/audit",
                "/metrics",
            ):
                await caller.get(path)
            await caller.post("/v1/check", json={"tenant": acme, "token": token})
            await caller.post("/v1/check", json={"tenant": token})
            await caller.post(f"/v1/tenants/{acme}/quotas/consume", json={"items": {"users": 1}})
            await caller.post(f"/v1/tenants/{token}/quotas/consume", json={"items": {"users": 1}})
            await caller.put(f"/v1/tenants/{token}", json={"tier": token})
            await caller.delete(f"/v1/tokens/{token}")
            await caller.get("/healthz", headers={"X-Partywall-Token": token})
            await caller.post("/dashboard/sign-in", data={"token": token})
    async with one.client() as admin:
        last = (await admin.get("/v1/tokens")).headers["x-request-id"]
    logged = await lines_where(one, lambda line: line.get("request_id") == last)
    assert logged[0]["path"] == "/v1/tokens"
    for secret in (*(text.split("_", 2)[2] for text in tokens), bad.split("_", 2)[2]):
        assert secret not in one.log
        assert base64.b64encode(secret.encode()).decode() not in one.log
    paths = Counter(line.get("path", "").rpartition("/")[2] for line in lines_of(one))
    assert paths["consume"] == 12  # changes of quotas are among all requests
    assert not paths["check"]
    assert one.admin_token not in one.log


async def test_a_thousand_tenants_make_no_more_series_than_a_few(
    sidecar: SidecarFactory, database_url: str
) -> None:
    one = sidecar()
    async with one.client() as client:
        await checks(client, [{"tenant": "t0"}])
        few = series(await scrape(client))
        await checks(client, [{"tenant": f"t{n}"} for n in range(1000)])
        judge(database_url, 1000)

        async def judged() -> str:
            text = await scrape(client)
            return text if "partywall_tenant_share{" in text else ""

        text, _ = await until(judged)
    named: dict[str, set[str]] = defaultdict(set)
    for family, tenant in re.findall(r'^(partywall_\w+){.*tenant="([^"]+)"', text, re.MULTILINE):
        named[family].add(tenant)
    assert set(map(len, named.values())) == {MOST_NAMED}
    unnamed = [name for name in series(text) if "tenant=" not in name]
    assert len(unnamed) <= len(few) + 2  # how old the judgement is, and the roll-up
    assert len(series(text)) - len(unnamed) == MOST_NAMED * len(named)


async def scrape(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


def series(text: str) -> list[str]:
    """The names of all samples, with their labels."""
    return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]


def judge(database_url: str, tenants: int) -> None:
    """Writes a judgement, as maintenance does of who was active."""
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO neighbours (tenant, computed_at, window_seconds, tier, requests, denied,"
            " in_flight_us, job_run_us, share, fair_share, resource, verdict)"
            " VALUES (%s, %s, 3600, 'free', 1, 0, 0, 0, %s, %s, 'requests', 'normal')",
            [(f"t{n}", datetime.now(UTC), n / tenants, 1 / tenants) for n in range(tenants)],
        )
