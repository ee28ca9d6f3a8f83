"""The register of tenants, on a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from partywall_service.ledger import DomainTaken, Ledger

UNSTORABLE = ["nul\0byte", "half a pair \ud800"]


async def put(ledger: Ledger, tenant: str, tier: str = "free", **changes: object) -> None:
    await ledger.put_tenant(tenant, tier=tier, actor="test", **changes)  # type: ignore[arg-type] # as given


async def actions(ledger: Ledger) -> list[str]:
    return [entry.action for entry in await ledger.list_audit(limit=100)]


async def test_a_new_tenant_gets_defaults(ledger: Ledger) -> None:
    record, created = await ledger.put_tenant("acme", tier="free", actor="test")
    assert created
    assert (record.tenant, record.name, record.tier) == ("acme", "acme", "free")
    assert (record.status, record.domains) == ("active", ())
    assert record.created_at == record.updated_at
    assert record.created_at.utcoffset() == timedelta(0)
    assert await ledger.get_tenant("acme") == record


async def test_what_is_not_named_is_kept(ledger: Ledger) -> None:
    given = {"name": "Acme Inc.", "domains": ["acme.example"], "status": "suspended"}
    await put(ledger, "acme", **given)
    record, created = await ledger.put_tenant("acme", tier="pro", actor="test")
    assert not created
    assert (record.tier, record.name, record.status) == ("pro", "Acme Inc.", "suspended")
    assert record.domains == ("acme.example",)


async def test_a_change_moves_updated_at_and_is_recorded_with_both_values(ledger: Ledger) -> None:
    first, _ = await ledger.put_tenant("acme", tier="free", actor="test")
    second, _ = await ledger.put_tenant("acme", tier="pro", domains=["a.example"], actor="ops")
    assert second.updated_at > first.updated_at
    assert second.created_at == first.created_at
    newest = (await ledger.list_audit(limit=1))[0]
    assert (newest.actor, newest.action, newest.tenant) == ("ops", "tenant.updated", "acme")
    assert newest.detail == {
        "tier": {"from": "free", "to": "pro"},
        "domains": {"from": [], "to": ["a.example"]},
    }


async def test_a_call_that_changes_nothing_leaves_no_trace(ledger: Ledger) -> None:
    same = {"tier": "pro", "name": "A", "domains": ["b.example", "a.example"], "actor": "test"}
    first, _ = await ledger.put_tenant("acme", status="active", **same)  # type: ignore[arg-type] # as given
    again, created = await ledger.put_tenant("acme", status="active", **same)  # type: ignore[arg-type] # as given
    assert not created
    assert again == first
    assert await actions(ledger) == ["tenant.created"]


async def test_domains_are_lower_case_once_each_and_replaced_whole(ledger: Ledger) -> None:
    await put(ledger, "acme", domains=["B.Example", "b.example", "a.example"])
    record = await ledger.get_tenant("acme")
    assert record is not None
    assert record.domains == ("a.example", "b.example")
    record, _ = await ledger.put_tenant(
        "acme", tier="free", domains=["c.example", "B.EXAMPLE"], actor="test"
    )
    assert record.domains == ("b.example", "c.example")
    record, _ = await ledger.put_tenant("acme", tier="free", domains=[], actor="test")
    assert record.domains == ()


async def test_a_domain_of_another_tenant_is_refused_and_nothing_changes(ledger: Ledger) -> None:
    await put(ledger, "acme", domains=["shared.example"])
    await put(ledger, "umbrella", domains=["own.example"])
    before = await ledger.get_tenant("umbrella")
    with pytest.raises(DomainTaken) as refusal:
        await put(ledger, "umbrella", "pro", domains=["new.example", "Shared.example"])
    assert (refusal.value.domain, refusal.value.tenant) == ("shared.example", "acme")
    assert await ledger.get_tenant("umbrella") == before
    assert len(await actions(ledger)) == 2


async def test_a_domain_let_go_can_be_taken(ledger: Ledger) -> None:
    await put(ledger, "acme", domains=["moving.example"])
    await put(ledger, "acme", domains=[])
    await put(ledger, "umbrella", domains=["moving.example"])
    found = await ledger.list_tenants(domain="Moving.Example", limit=10)
    assert [record.tenant for record in found] == ["umbrella"]


async def test_of_many_creating_one_tenant_at_once_one_does_and_none_fails(ledger: Ledger) -> None:
    answers = await asyncio.gather(
        *(
            ledger.put_tenant("acme", tier=f"t{n}", domains=["a.example"], actor="test")
            for n in range(20)
        )
    )
    assert sorted(created for _, created in answers) == [False] * 19 + [True]
    assert sorted(await actions(ledger)) == ["tenant.created"] + ["tenant.updated"] * 19


async def test_of_many_claiming_one_domain_at_once_one_gets_it(ledger: Ledger) -> None:
    wanted = ["a.example", "b.example", "c.example"]
    answers = await asyncio.gather(
        *(
            ledger.put_tenant(
                f"t{n}", tier="free", domains=wanted[:: 1 if n % 2 else -1], actor="test"
            )
            for n in range(10)
        ),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, DomainTaken)]
    won = [answer for answer in answers if isinstance(answer, tuple)]
    assert (len(won), len(refused)) == (1, 9)
    assert [record.tenant for record in await ledger.list_tenants(limit=20)] == [won[0][0].tenant]


async def test_creating_and_deleting_at_once_never_fails(ledger: Ledger) -> None:
    calls = [
        call
        for n in range(15)
        for call in (
            ledger.put_tenant("acme", tier=f"t{n}", domains=["a.example"], actor="test"),
            ledger.erase_tenant("acme", actor="test"),
        )
    ]
    await asyncio.gather(*calls)


async def test_lists_follow_the_ids_bytes_in_pages(ledger: Ledger) -> None:
    for tenant in ("b", "a-1", "B", "a.1", "10", "a"):
        await put(ledger, tenant)
    pages, after = [], None
    while page := await ledger.list_tenants(after=after, limit=2):
        pages.append([record.tenant for record in page])
        after = page[-1].tenant
    assert pages == [["10", "B"], ["a", "a-1"], ["a.1", "b"]]


async def test_each_filter_narrows_a_list(ledger: Ledger) -> None:
    await put(ledger, "a", "free", status="suspended", domains=["a.example"])
    await put(ledger, "b", "free")
    await put(ledger, "c", "pro", status="suspended")

    async def ids(**filters: str) -> list[str]:
        found = await ledger.list_tenants(limit=10, **filters)  # type: ignore[arg-type] # as given
        return [record.tenant for record in found]

    assert await ids(tier="free") == ["a", "b"]
    assert await ids(status="suspended") == ["a", "c"]
    assert await ids(tier="free", status="suspended") == ["a"]
    assert await ids(domain="a.example") == ["a"]
    assert await ids(domain="a.example", tier="pro") == []


async def test_erasing_leaves_one_audit_line(ledger: Ledger) -> None:
    await put(ledger, "acme", domains=["a.example"])
    await put(ledger, "umbrella")
    await ledger.put_override(
        "acme", "limits", "requests", 5, expires_at=None, reason="", author="test"
    )
    await ledger.create_token("tenant:acme", "own", actor="test")
    host, _ = await ledger.create_token("host", "host", actor="test")

    assert await ledger.erase_tenant("acme", actor="ops")

    assert await ledger.get_tenant("acme") is None
    assert await ledger.list_overrides("acme", limit=10) == []
    assert [token.id for token in await ledger.list_tokens(limit=10)] == [host.id]
    assert [record.tenant for record in await ledger.list_tenants(limit=10)] == ["umbrella"]
    await put(ledger, "umbrella", domains=["a.example"])
    (line,) = await ledger.list_audit(tenant="acme", limit=10)
    assert (line.actor, line.action) == ("ops", "tenant.erased")
    assert line.detail == {
        "tier": "free",
        "erased": {"domains": 1, "overrides": 1, "tokens": 1, "audit": 3},
    }
    assert not await ledger.erase_tenant("acme", actor="later")
    assert await ledger.list_audit(tenant="acme", limit=10) == [line]


async def test_of_two_lives_the_last_has_a_line(ledger: Ledger) -> None:
    await put(ledger, "acme", "free")
    await ledger.erase_tenant("acme", actor="ops")
    await put(ledger, "acme", "pro")
    await ledger.erase_tenant("acme", actor="ops")
    (line,) = await ledger.list_audit(limit=10)
    assert line.detail == {"tier": "pro", "erased": {"audit": 1}}


async def test_what_is_late_goes_with_the_rest_and_leaves_no_line(ledger: Ledger) -> None:
    await put(ledger, "acme")
    await ledger.erase_tenant("acme", actor="ops")
    await ledger.create_token("tenant:acme", "late", actor="test")
    assert await ledger.erase_rest("acme")
    assert await ledger.list_tokens(limit=10) == []
    await ledger.create_token("tenant:acme", "later", actor="test")
    assert await ledger.erase_tenant("acme", actor="again")
    assert await ledger.list_tokens(limit=10) == []
    (line,) = await ledger.list_audit(limit=10)
    assert line.actor == "ops"


async def test_who_is_registered_anew_keeps_everything(ledger: Ledger) -> None:
    await put(ledger, "acme")
    await ledger.erase_tenant("acme", actor="ops")
    await put(ledger, "acme", "pro")
    own, _ = await ledger.create_token("tenant:acme", "own", actor="test")
    assert not await ledger.erase_rest("acme")
    assert await ledger.get_tenant("acme") is not None
    assert [token.id for token in await ledger.list_tokens(limit=10)] == [own.id]


async def test_deleting_what_is_not_there_leaves_no_trace(ledger: Ledger) -> None:
    assert not await ledger.erase_tenant("nobody", actor="test")
    assert await actions(ledger) == []


async def test_tiers_that_the_policy_lacks_are_counted(ledger: Ledger) -> None:
    for tenant, tier in (("a", "gold"), ("b", "gold"), ("c", "old"), ("d", "free")):
        await put(ledger, tenant, tier)
    assert await ledger.missing_tiers({"free", "pro"}) == {"gold": 2, "old": 1}
    assert await ledger.missing_tiers(["free", "gold", "old"]) == {}
    assert await ledger.missing_tiers([]) == {"gold": 2, "old": 1, "free": 1}


async def test_many_are_loaded_with_their_overrides_by_one_statement(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(put(ledger, f"t{n}", domains=[f"{n}.example"]) for n in range(60)))
    soon = datetime.now(UTC) + timedelta(hours=1)
    exact = await ledger.put_override(
        "t7", "limits", "requests", "5/second", expires_at=soon, reason="why", author="ops"
    )
    lasting = await ledger.put_override(
        "t7", "jobs", "concurrency", 3, expires_at=None, reason="", author="ops"
    )
    past = datetime.now(UTC) - timedelta(seconds=1)
    await ledger.put_override(
        "t8", "limits", "requests", 1, expires_at=past, reason="", author="ops"
    )
    await ledger.load_many([])  # it has a connection from here on
    statements: list[object] = []
    execute = psycopg.AsyncCursor.execute

    async def count(cursor: Any, statement: Any, *rest: Any, **options: Any) -> Any:
        statements.append(statement)
        return await execute(cursor, statement, *rest, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", count)
    loaded = await ledger.load_many([f"t{n}" for n in range(100)])
    assert len(statements) == 1
    assert set(loaded) == {f"t{n}" for n in range(60)}
    assert all(record.domains == (f"{id_[1:]}.example",) for id_, (record, _) in loaded.items())
    assert loaded["t5"][0] == await ledger.get_tenant("t5")
    assert set(loaded["t7"][1]) == {exact, lasting}
    assert loaded["t8"][1] == ()
    assert await ledger.load_many([]) == {}
    assert len(statements) > 1  # they were counted


@pytest.mark.parametrize("text", UNSTORABLE)
async def test_text_that_postgresql_cannot_hold_is_a_value_error(ledger: Ledger, text: str) -> None:
    await put(ledger, "acme")
    for call in (
        ledger.put_tenant(text, tier="free", actor="test"),
        ledger.put_tenant("acme", tier="free", name=text, actor="test"),
        ledger.put_tenant("acme", tier="free", domains=[text], actor="test"),
        ledger.put_override(
            "acme", "limits", "requests", text, expires_at=None, reason="", author="test"
        ),
        ledger.get_tenant(text),
        ledger.get_tenant("acme", scope=text),
        ledger.list_tenants(domain=text, limit=1),
        ledger.list_tenants(after=text, limit=1),
        ledger.erase_tenant(text, actor="test"),
        ledger.create_token("host", text, actor="test"),
        ledger.find_tokens([text]),
        ledger.load_many(["acme", text]),
    ):
        with pytest.raises(ValueError, match="PostgreSQL can store"):
            await call
    assert await actions(ledger) == ["tenant.created"]


@pytest.mark.parametrize(
    "hostile", ["'; DROP TABLE tenants; --", "%(tenant)s", "{acme}", "a'b\"c\\"]
)
async def test_sql_in_an_id_is_only_text(ledger: Ledger, hostile: str) -> None:
    await put(ledger, hostile, name=hostile, domains=[hostile.lower()])
    assert (await ledger.load_many([hostile]))[hostile][0].name == hostile
    scoped = await ledger.get_tenant(hostile, scope=hostile)
    assert scoped is not None
    assert scoped.tenant == hostile
    assert [record.tenant for record in await ledger.list_tenants(limit=10)] == [hostile]
    assert await ledger.erase_tenant(hostile, actor="test")


async def test_a_status_that_is_none_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="provisioning"):
        await put(ledger, "acme", status="asleep")
