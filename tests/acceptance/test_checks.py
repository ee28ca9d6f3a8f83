"""`/v1/check` and `/v1/checks`: what they answer."""

import json
from datetime import UTC, datetime, timedelta

import httpx

from tests.acceptance.asking import check, checks, fresh_tenant, new_token, put_tenant
from tests.support.api import problem_of
from tests.support.sidecar import Sidecar

FIELDS = [
    *("allowed", "tenant", "tier", "limit", "cost", "reason", "degraded"),
    *("remaining", "retry_after", "reset_after", "windows"),
]
MAX_COST = 2**53 - 1


async def test_a_decision_is_as_the_contract_has_it(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.post("/v1/check", json={"tenant": acme})
    assert answer.headers["content-type"] == "application/json"
    decision = answer.json()
    assert list(decision) == FIELDS
    reset_after = decision.pop("reset_after")
    [window] = decision.pop("windows")
    assert decision == {
        "allowed": True,
        "tenant": acme,
        "tier": "free",
        "limit": "requests",
        "cost": 1,
        "reason": None,
        "degraded": False,
        "remaining": 4,
        "retry_after": 0.0,
    }
    assert list(window) == ["quota", "window", "remaining", "reset_after"]
    assert (window["quota"], window["window"], window["remaining"]) == (5, 60, 4)
    assert window["reset_after"] == reset_after
    assert 60 <= reset_after <= 60 * (1 + 1 / 25)


async def test_times_are_floats_also_when_they_are_whole(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    text = (await asked.post("/v1/check", json={"tenant": acme})).text
    assert '"retry_after":0.0' in text
    assert text == json.dumps(json.loads(text), separators=(",", ":"))


async def test_a_denial_is_a_value(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    assert (await check(asked, acme, cost=5))["remaining"] == 0
    denial = await check(asked, acme)
    assert list(denial) == FIELDS
    assert (denial["allowed"], denial["reason"]) == (False, "limit-exceeded")
    assert denial["remaining"] == 0
    assert 55 < denial["retry_after"] <= 60 * (1 + 1 / 25)


async def test_the_fields_left_out_have_their_defaults(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    short = await check(asked, acme)
    whole = await check(asked, acme, limit="requests", cost=1, dry_run=False)
    assert (short["limit"], short["cost"]) == (whole["limit"], whole["cost"]) == ("requests", 1)
    assert (short["remaining"], whole["remaining"]) == (4, 3)


async def test_a_dry_run_says_what_would_be_and_changes_nothing(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    for _ in range(10):
        looked = await check(asked, acme, cost=4, dry_run=True)
        assert (looked["allowed"], looked["remaining"]) == (True, 1)
    assert (await check(asked, acme, cost=4))["remaining"] == 1
    would_not = await check(asked, acme, cost=2, dry_run=True)
    assert (would_not["allowed"], would_not["remaining"]) == (False, 1)
    assert (await check(asked, acme, cost=1))["allowed"] is True


async def test_all_windows_must_have_room_and_a_denial_charges_none(
    asked: httpx.AsyncClient,
) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    first = await check(asked, acme, limit="exports", cost=2)
    assert [(it["quota"], it["window"], it["remaining"]) for it in first["windows"]] == [
        (2, 1, 0),
        (10, 60, 8),
        (100, 3600, 98),
    ]
    assert first["remaining"] == 0
    assert first["reset_after"] == max(it["reset_after"] for it in first["windows"])
    denied = await check(asked, acme, limit="exports", cost=3)
    assert denied["allowed"] is False
    assert [it["remaining"] for it in denied["windows"][1:]] == [8, 98]


async def test_what_never_fits_is_told_no_time(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    denied = await check(asked, acme, cost=6)
    assert (denied["allowed"], denied["reason"]) == (False, "limit-exceeded")
    assert denied["retry_after"] is None
    assert denied["remaining"] == 5
    # More than one of the windows holds, though not the longest.
    assert (await check(asked, acme, limit="exports", cost=3))["retry_after"] is None


async def test_the_largest_cost_is_counted_exactly(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    assert (await check(asked, acme, limit="huge", cost=MAX_COST - 1))["remaining"] == 1
    assert (await check(asked, acme, limit="huge", cost=2))["allowed"] is False
    assert (await check(asked, acme, limit="huge", cost=1))["remaining"] == 0
    denied = await check(asked, acme, limit="huge", cost=MAX_COST)
    assert denied["allowed"] is False
    assert 55 < denied["retry_after"] <= 62.4


async def test_unlimited_has_no_windows(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme, tier="enterprise")
    for cost in (1, MAX_COST):
        decision = await check(asked, acme, cost=cost)
        assert list(decision) == FIELDS
        assert decision["allowed"] is True
        assert (decision["windows"], decision["remaining"]) == ([], None)
        assert (decision["retry_after"], decision["reset_after"]) == (0.0, 0.0)


async def test_a_limit_that_only_another_tier_names_is_unlimited(asked: httpx.AsyncClient) -> None:
    free, pro = fresh_tenant(), fresh_tenant()
    await put_tenant(asked, free)
    await put_tenant(asked, pro, tier="pro")
    assert (await check(asked, free, limit="uploads", cost=1000))["remaining"] is None
    assert (await check(asked, pro, limit="uploads"))["remaining"] == 6


async def test_an_observed_limit_denies_nothing(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    seen = [await check(asked, acme, limit="observed") for _ in range(5)]
    assert all(decision["allowed"] and decision["reason"] is None for decision in seen)
    assert [decision["remaining"] for decision in seen] == [1, 0, 0, 0, 0]
    assert all(decision["retry_after"] == 0.0 for decision in seen)
    metrics = (await asked.get("/metrics")).text
    assert 'limit="observed",outcome="would_deny",tier="free"' in metrics


async def test_a_suspended_tenant_is_denied_whatever_its_limits(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme, tier="enterprise", status="suspended")
    decision = await check(asked, acme)
    assert list(decision) == FIELDS
    assert (decision["allowed"], decision["reason"]) == (False, "tenant-suspended")
    assert decision["tier"] == "enterprise"
    assert decision["retry_after"] is None  # waiting does not help
    await put_tenant(asked, acme, tier="enterprise", status="active")
    assert (await check(asked, acme))["allowed"] is True


async def test_unknown_tenants_and_limits_are_problems(asked: httpx.AsyncClient) -> None:
    acme, nobody = fresh_tenant(), fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.post("/v1/check", json={"tenant": nobody})
    assert nobody in problem_of(answer, 404, "unknown-tenant")["detail"]
    answer = await asked.post("/v1/check", json={"tenant": acme, "limit": "nope"})
    assert "nope" in problem_of(answer, 404, "unknown-limit")["detail"]


async def test_in_a_list_each_has_its_own_answer_in_order(asked: httpx.AsyncClient) -> None:
    acme, gone, nobody = fresh_tenant(), fresh_tenant(), fresh_tenant()
    await put_tenant(asked, acme)
    await put_tenant(asked, gone, status="suspended")
    asks = [
        {"tenant": acme, "cost": 4},
        {"tenant": nobody},
        {"tenant": acme, "limit": "nope"},
        {"tenant": acme, "cost": 2},
        {"tenant": gone},
        {"tenant": acme},
        {"tenant": acme, "dry_run": True},
    ]
    answers = await checks(asked, asks)
    assert all(list(decision) == FIELDS for decision in answers)
    assert [(it["allowed"], it["reason"], it["tier"], it["remaining"]) for it in answers] == [
        (True, None, "free", 1),
        (False, "unknown-tenant", None, 0),
        (False, "unknown-limit", "free", 0),
        (False, "limit-exceeded", "free", 1),
        (False, "tenant-suspended", "free", 0),
        (True, None, "free", 0),
        (False, "limit-exceeded", "free", 0),
    ]
    assert [it["tenant"] for it in answers] == [it["tenant"] for it in asks]


async def test_a_list_may_be_empty_and_have_a_thousand(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    assert await checks(asked, []) == []
    # The longest names and costs there are: they must fit in a body as well.
    item = {"tenant": "x" * 128, "limit": "y" * 64, "cost": MAX_COST, "dry_run": False}
    answers = await checks(asked, [item] * 994 + [{"tenant": acme}] * 6)
    assert [it["reason"] for it in answers[:994]] == ["unknown-tenant"] * 994
    assert [it["allowed"] for it in answers[994:]] == [True] * 5 + [False]


async def test_a_thousand_tenants_at_once(asked: httpx.AsyncClient) -> None:
    tenants = [fresh_tenant() for _ in range(20)]
    for tenant in tenants:
        await put_tenant(asked, tenant)
    answers = await checks(asked, [{"tenant": tenants[n % 20]} for n in range(1000)])
    assert sum(it["allowed"] for it in answers) == 20 * 5
    assert all(it["allowed"] for it in answers[:100])  # the first five of each


async def test_a_malformed_item_refuses_the_whole_list(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    for bad in ({"tenant": "a b"}, {"tenant": acme, "limit": "a b"}, {"tenant": acme, "cost": 0}):
        answer = await asked.post("/v1/checks", json=[{"tenant": acme}, bad])
        [error] = problem_of(answer, 422, "invalid-request")["errors"]
        assert error["field"].startswith("[1].")
    assert (await check(asked, acme))["remaining"] == 4


async def test_overrides_are_felt(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    path = f"/v1/tenants/{acme}/overrides/limits/requests"
    wider = {"value": "8/minute", "reason": "launch"}
    assert (await asked.put(path, json=wider)).status_code == 200
    assert (await check(asked, acme))["remaining"] == 7
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    unlimited = {"value": "unlimited", "reason": "launch", "expires_at": soon}
    assert (await asked.put(path, json=unlimited)).status_code == 200
    assert (await check(asked, acme))["windows"] == []
    assert (await asked.delete(path)).status_code == 204
    # What was charged under the override still counts in the same window.
    assert (await check(asked, acme))["remaining"] == 3


async def test_an_override_of_an_observed_limit_observes(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    path = f"/v1/tenants/{acme}/overrides/limits/observed"
    assert (await asked.put(path, json={"value": "1/minute", "reason": "x"})).status_code == 200
    assert [(await check(asked, acme, limit="observed"))["allowed"] for _ in range(3)] == [True] * 3


async def test_a_tenants_features_are_its_tiers(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    assert (await put_tenant(asked, acme))["features"] == []
    assert (await put_tenant(asked, acme, tier="pro"))["features"] == ["advanced-analytics"]
    assert (await put_tenant(asked, acme, tier="enterprise"))["features"] == ["advanced-analytics"]


async def test_who_may_check(asked: httpx.AsyncClient, asked_sidecar: Sidecar) -> None:
    acme, other = fresh_tenant(), fresh_tenant()
    for tenant in (acme, other):
        await put_tenant(asked, tenant)
    host = await new_token(asked, "host")
    own = await new_token(asked, f"tenant:{acme}")
    async with asked_sidecar.client(host["token"]) as client:
        assert (await check(client, acme))["remaining"] == 4
    async with asked_sidecar.client(own["token"]) as client:
        looked = await check(client, acme, dry_run=True)
        assert looked["allowed"] is True
        for body in (
            {"tenant": acme},
            {"tenant": other, "dry_run": True},
            {"tenant": fresh_tenant(), "dry_run": True},  # not even whether there is such a one
        ):
            problem_of(await client.post("/v1/check", json=body), 403, "forbidden")
            mixed = [{"tenant": acme, "dry_run": True}, body]
            problem_of(await client.post("/v1/checks", json=mixed), 403, "forbidden")
        # Of a field given twice the last counts, as in Python's own reader, for every purpose.
        twice = f'{{"tenant": "{acme}", "tenant": "{other}", "dry_run": true}}'
        problem_of(await client.post("/v1/check", content=twice), 403, "forbidden")
    assert (await check(asked, acme))["remaining"] == 3
    assert (await check(asked, other))["remaining"] == 4
