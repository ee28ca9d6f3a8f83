"""`/v1/tenants/{tenant}/overrides`, on a real PostgreSQL."""

from typing import Any

import pytest

from tests.support.api import Caller, fields_of, problem_of

BASE = "/v1/tenants/acme/overrides"
BODY = {"value": "500/minute", "reason": "launch day"}


@pytest.fixture(autouse=True)
async def acme(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", {"tier": "pro"})


async def test_an_override_is_set_replaced_read_and_ended(admin: Caller) -> None:
    body = BODY | {"expires_at": "2098-01-31T14:00:00+02:00"}
    answer = await admin.put(f"{BASE}/limits/requests", body)
    assert answer.status_code == 200
    override = answer.json()
    assert override == {
        "kind": "limits",
        "name": "requests",
        "value": "500/minute",
        "expires_at": "2098-01-31T12:00:00Z",
        "reason": "launch day",
        "author": "admin",
        "created_at": override["created_at"],
    }
    assert (await admin.get(BASE)).json() == {"overrides": [override], "next_cursor": None}

    replaced = (await admin.put(f"{BASE}/limits/requests", BODY | {"value": "unlimited"})).json()
    assert (replaced["value"], replaced["expires_at"]) == ("unlimited", None)
    assert (await admin.get(BASE)).json()["overrides"] == [replaced]

    answer = await admin.delete(f"{BASE}/limits/requests")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await admin.get(BASE)).json()["overrides"] == []
    problem_of(await admin.delete(f"{BASE}/limits/requests"), 404, "unknown-override")


async def test_each_kind_takes_its_own_values(admin: Caller) -> None:
    for path, value in {
        "jobs/concurrency": 20,
        "jobs/max_queued": "unlimited",
        "jobs/rate": "7/second",
        "jobs/queue": "dedicated",
        "limits/requests": "10/second",
        "quotas/storage": "5 GiB",
        "quotas/users": -1,
    }.items():
        answer = await admin.put(f"{BASE}/{path}", BODY | {"value": value})
        assert answer.status_code == 200, answer.text
        assert answer.json()["value"] == value


async def test_the_list_comes_in_pages_by_kind_and_name(admin: Caller) -> None:
    paths = ["jobs/concurrency", "jobs/rate", "limits/requests", "quotas/storage", "quotas/users"]
    for path in reversed(paths):
        value = 7 if "rate" not in path and "limits" not in path else "7/hour"
        assert (await admin.put(f"{BASE}/{path}", BODY | {"value": value})).status_code == 200
    for page_size in (1, 2, 5, 6):
        seen: list[str] = []
        params: dict[str, Any] = {"page_size": page_size}
        while True:
            page = (await admin.get(BASE, **params)).json()
            seen += [f"{one['kind']}/{one['name']}" for one in page["overrides"]]
            if page["next_cursor"] is None:
                break
            params["cursor"] = page["next_cursor"]
        assert seen == paths


@pytest.mark.parametrize(
    ("path", "slug"),
    [("limits/nonesuch", "unknown-limit"), ("quotas/nonesuch", "unknown-resource")],
)
async def test_a_name_that_no_tier_gives_is_unknown(admin: Caller, path: str, slug: str) -> None:
    problem = problem_of(await admin.put(f"{BASE}/{path}", BODY | {"value": 1}), 404, slug)
    assert "nonesuch" in problem["detail"]


@pytest.mark.parametrize(
    ("path", "changes", "field"),
    [
        ("jobs/nonesuch", {}, "name"),
        ("limits/a%20b", {}, "name"),
        ("limits/%00", {}, "name"),
        ("features/requests", {}, "kind"),
        ("limits/requests", {"value": "often"}, "value"),
        ("limits/requests", {"value": "0/minute"}, "value"),
        ("limits/requests", {"value": 5}, "value"),
        ("quotas/users", {"value": "many"}, "value"),
        ("quotas/users", {"value": 1.5}, "value"),
        ("jobs/concurrency", {"value": "10/second"}, "value"),
        ("jobs/queue", {"value": "_system"}, "value"),
        ("limits/requests", {"value": "9" * 190 + "/minute"}, "value"),
        ("limits/requests", {"value": "\N{ARABIC-INDIC DIGIT ONE}/minute"}, "value"),
        ("quotas/storage", {"value": "9" * 190 + " TiB"}, "value"),
        ("quotas/storage", {"value": "1e300 TB"}, "value"),
        ("quotas/storage", {"value": "nan"}, "value"),
        ("limits/requests", {"reason": ""}, "reason"),
        ("limits/requests", {"reason": "a\x00b"}, "reason"),
        ("limits/requests", {"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ("limits/requests", {"expires_at": "2098-01-01T00:00:00"}, "expires_at"),
        ("limits/requests", {"expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ("limits/requests", {"author": "me"}, "author"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    admin: Caller, path: str, changes: dict[str, Any], field: str
) -> None:
    assert fields_of(await admin.put(f"{BASE}/{path}", BODY | changes)) == [field]
    assert (await admin.get(BASE)).json()["overrides"] == []


async def test_the_latest_expiry_is_read_back(admin: Caller) -> None:
    body = BODY | {"expires_at": "9998-12-31T23:59:59Z"}
    assert (await admin.put(f"{BASE}/limits/requests", body)).status_code == 200
    (override,) = (await admin.get(BASE)).json()["overrides"]
    assert override["expires_at"] == "9998-12-31T23:59:59Z"


async def test_without_a_tenant_there_are_no_overrides(admin: Caller) -> None:
    base = "/v1/tenants/nobody/overrides"
    problem_of(await admin.put(f"{base}/limits/requests", BODY), 404, "unknown-tenant")
    problem_of(await admin.get(base), 404, "unknown-tenant")
    problem_of(await admin.delete(f"{base}/limits/requests"), 404, "unknown-override")


async def test_a_tenants_overrides_end_with_it(admin: Caller) -> None:
    await admin.put(f"{BASE}/limits/requests", BODY)
    await admin.delete("/v1/tenants/acme")
    await admin.put("/v1/tenants/acme", {"tier": "pro"})
    assert (await admin.get(BASE)).json()["overrides"] == []


async def test_the_author_is_the_token(admin: Caller) -> None:
    other = await admin.caller("admin")
    author = (await other.put(f"{BASE}/limits/requests", BODY)).json()["author"]
    assert author.startswith("admin (")  # the token's name and id, as the audit log has it
