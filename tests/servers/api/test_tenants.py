"""`/v1/tenants`, on a real PostgreSQL."""

import asyncio
from typing import Any

import pytest

from tests.support.api import Caller, fields_of, problem_of


async def test_a_tenant_is_registered_changed_read_and_deleted(admin: Caller) -> None:
    answer = await admin.put("/v1/tenants/acme", {"tier": "pro"})
    assert answer.status_code == 201
    new = answer.json()
    assert new == {
        "tenant": "acme",
        "name": "acme",
        "tier": "pro",
        "status": "active",
        "domains": [],
        "features": ["advanced-analytics"],
        "created_at": new["created_at"],
        "updated_at": new["created_at"],
    }
    assert new["created_at"].endswith("Z")

    body = {"tier": "free", "name": "Acme Ltd", "domains": ["B.example", "a.example"]}
    answer = await admin.put("/v1/tenants/acme", body)
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["domains"] == ["a.example", "b.example"]
    assert (changed["name"], changed["tier"], changed["features"]) == ("Acme Ltd", "free", [])
    assert changed["created_at"] == new["created_at"]
    assert changed["updated_at"] > new["updated_at"]
    assert (await admin.get("/v1/tenants/acme")).json() == changed

    for _ in range(2):  # also when there is none
        answer = await admin.delete("/v1/tenants/acme")
        assert (answer.status_code, answer.content) == (204, b"")
    problem_of(await admin.get("/v1/tenants/acme"), 404, "unknown-tenant")


async def test_what_is_left_out_is_kept(admin: Caller) -> None:
    first = {"tier": "pro", "name": "Acme", "domains": ["a.example"], "status": "suspended"}
    await admin.put("/v1/tenants/acme", first)
    kept = (await admin.put("/v1/tenants/acme", {"tier": "free", "name": None})).json()
    assert (kept["name"], kept["domains"], kept["status"]) == ("Acme", ["a.example"], "suspended")
    emptied = (await admin.put("/v1/tenants/acme", {"tier": "free", "domains": []})).json()
    assert emptied["domains"] == []


async def test_an_unknown_tier_is_refused_with_those_there_are(admin: Caller) -> None:
    answer = await admin.put("/v1/tenants/acme", {"tier": "gold"})
    assert problem_of(answer, 422, "invalid-request")["errors"] == [
        {"field": "tier", "reason": "expected one of free, pro, enterprise; got 'gold'"}
    ]
    problem_of(await admin.get("/v1/tenants/acme"), 404, "unknown-tenant")


async def test_a_domain_belongs_to_one_tenant(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", {"tier": "pro", "domains": ["shop.example"]})
    answer = await admin.put("/v1/tenants/other", {"tier": "pro", "domains": ["SHOP.example"]})
    assert "shop.example" in problem_of(answer, 409, "conflict")["detail"]
    problem_of(await admin.get("/v1/tenants/other"), 404, "unknown-tenant")


async def test_at_once_one_creates_and_the_others_change(admin: Caller) -> None:
    answers = await asyncio.gather(
        *(admin.put("/v1/tenants/acme", {"tier": "pro"}) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]


@pytest.mark.parametrize(
    "tenant",
    ["-acme", ".acme", "a%20b", "a%00b", "a%0A", "%C3%A9", "a" * 129, "a;b", "a'--", "a%F0%9F"],
)
async def test_what_cannot_be_an_id_is_refused(admin: Caller, tenant: str) -> None:
    path = f"/v1/tenants/{tenant}"
    assert fields_of(await admin.get(path)) == ["tenant"]
    assert fields_of(await admin.put(path, {"tier": "pro"})) == ["tenant"]
    assert fields_of(await admin.delete(path)) == ["tenant"]


@pytest.mark.parametrize("tenant", ["a", "a" * 128, "0", "A.b_c-d"])
async def test_ids_up_to_the_edges_are_taken(admin: Caller, tenant: str) -> None:
    assert (await admin.put(f"/v1/tenants/{tenant}", {"tier": "pro"})).status_code == 201
    assert (await admin.get(f"/v1/tenants/{tenant}")).json()["tenant"] == tenant


async def listed(caller: Caller, **params: Any) -> list[str]:
    """The ids of every page, in order."""
    ids: list[str] = []
    cursor = None
    while True:
        paging = {} if cursor is None else {"cursor": cursor}
        answer = await caller.get("/v1/tenants", **params, **paging)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert set(page) == {"tenants", "next_cursor"}
        ids += [tenant["tenant"] for tenant in page["tenants"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids


async def test_the_list_comes_in_pages_by_id(admin: Caller) -> None:
    names = sorted(f"t{n}" for n in range(7))
    for name in reversed(names):
        await admin.put(f"/v1/tenants/{name}", {"tier": "pro"})
    for page_size in (1, 2, 7, 1000):
        assert await listed(admin, page_size=page_size) == names
    first = (await admin.get("/v1/tenants", page_size=3)).json()
    await admin.delete("/v1/tenants/t2")  # the page's last key is gone
    rest = (await admin.get("/v1/tenants", cursor=first["next_cursor"])).json()
    assert [tenant["tenant"] for tenant in rest["tenants"]] == names[3:]


async def test_each_filter_narrows_the_list(admin: Caller) -> None:
    await admin.put("/v1/tenants/a", {"tier": "free", "domains": ["a.example"]})
    await admin.put("/v1/tenants/b", {"tier": "free", "status": "suspended"})
    await admin.put("/v1/tenants/c", {"tier": "pro", "status": "suspended"})
    assert await listed(admin, tier="free") == ["a", "b"]
    assert await listed(admin, status="suspended") == ["b", "c"]
    assert await listed(admin, tier="free", status="suspended") == ["b"]
    assert await listed(admin, domain="A.Example") == ["a"]
    assert await listed(admin, domain="b.example") == []
    assert await listed(admin, tier="retired") == []
    assert await listed(admin, tier="free", page_size=1) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_size", "0"),
        ("page_size", "1001"),
        ("page_size", "many"),
        ("page_size", ""),
        ("page_size", "9" * 5000),
        ("cursor", "nonsense"),
        ("cursor", ""),
        ("cursor", "\x00"),
        ("cursor", "x" * 2000),
        ("tier", "a b"),
        ("tier", "\x00"),
        ("status", "gone"),
        ("domain", "no host name"),
        ("domain", "a\x00.example"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(admin: Caller, name: str, value: str) -> None:
    assert fields_of(await admin.get("/v1/tenants", **{name: value})) == [name]


async def test_a_cursor_of_another_list_is_refused(admin: Caller) -> None:
    for _ in range(2):
        await admin.token("host")
    cursor = (await admin.get("/v1/tokens", page_size=1)).json()["next_cursor"]
    assert fields_of(await admin.get("/v1/tenants", cursor=cursor)) == ["cursor"]
