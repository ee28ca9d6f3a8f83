"""Tokens and the audit log, on a real PostgreSQL."""

import asyncio
import hashlib

import psycopg
import pytest

from partywall_service.ledger import Ledger
from partywall_service.ledger.token_text import TokenText


@pytest.mark.parametrize("scope", ["admin", "host", "tenant:acme", "tenant:a:b"])
async def test_a_token_is_found_by_its_id_with_its_secrets_digest(
    ledger: Ledger, scope: str
) -> None:
    record, text = await ledger.create_token(scope, "ci", actor="test")
    assert (record.scope, record.name) == (scope, "ci")
    parsed = TokenText.parse(text)
    assert parsed is not None
    digest = hashlib.sha256(parsed.secret.encode()).digest()
    assert await ledger.find_tokens([record.id, "0" * 12]) == {record.id: (record, digest)}


async def test_no_secret_is_stored_anywhere(ledger: Ledger, database_url: str) -> None:
    _, text = await ledger.create_token("host", "ci", actor="test")
    parsed = TokenText.parse(text)
    assert parsed is not None
    with psycopg.connect(database_url) as connection:
        for table in ("tokens", "audit"):
            rows = connection.execute(f"SELECT row_to_json(t)::text FROM {table} t").fetchall()
            assert rows
            assert parsed.secret not in str(rows)
            assert parsed.secret.encode().hex() not in str(rows)


@pytest.mark.parametrize("scope", ["", "root", "tenant", "tenant:", "admin:acme", "host:", "Admin"])
async def test_a_scope_that_is_none_is_refused(ledger: Ledger, scope: str) -> None:
    with pytest.raises(ValueError, match="expected the scope"):
        await ledger.create_token(scope, "ci", actor="test")


async def test_a_revoked_token_is_gone_and_both_ends_are_recorded(ledger: Ledger) -> None:
    record, _ = await ledger.create_token("tenant:acme", "ci", actor="admin")
    assert await ledger.revoke_token(record.id, actor="ops")
    assert not await ledger.revoke_token(record.id, actor="ops")
    assert await ledger.find_tokens([record.id]) == {}
    revoked, created = await ledger.list_audit(tenant="acme", limit=10)
    assert (created.action, created.actor) == ("token.created", "admin")
    assert (revoked.action, revoked.actor) == ("token.revoked", "ops")
    assert (
        created.detail
        == revoked.detail
        == {
            "id": record.id,
            "scope": "tenant:acme",
            "name": "ci",
        }
    )


async def test_lists_come_in_pages(ledger: Ledger) -> None:
    made = sorted([(await ledger.create_token("host", "x", actor="test"))[0].id for _ in range(5)])
    first = await ledger.list_tokens(limit=3)
    rest = await ledger.list_tokens(after=first[-1].id, limit=3)
    assert [token.id for token in [*first, *rest]] == made


async def test_the_audit_log_reads_backwards_in_pages(ledger: Ledger) -> None:
    for tenant in ("a", "b", "c", "d"):
        await ledger.put_tenant(tenant, tier="free", actor="test")
    first = await ledger.list_audit(limit=3)
    rest = await ledger.list_audit(before=first[-1].id, limit=3)
    assert [line.tenant for line in [*first, *rest]] == ["d", "c", "b", "a"]
    assert [line.tenant for line in await ledger.list_audit(tenant="b", limit=3)] == ["b"]
    assert all(line.at.tzinfo is not None for line in first)


async def test_one_tenants_lines_read_in_the_order_of_the_changes(ledger: Ledger) -> None:
    await ledger.put_tenant("acme", tier="t", actor="test")
    await asyncio.gather(
        *(ledger.put_tenant("acme", tier=f"t{n}", actor="test") for n in range(20))
    )
    lines = (await ledger.list_audit(tenant="acme", limit=100))[::-1]
    tiers = ["t", *(line.detail["tier"]["to"] for line in lines[1:])]
    assert [line.detail["tier"]["from"] for line in lines[1:]] == tiers[:-1]
    instants = [line.at for line in lines]
    assert instants == sorted(instants)


@pytest.mark.parametrize(
    "change", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"]
)
async def test_the_audit_log_cannot_be_rewritten(
    ledger: Ledger, database_url: str, change: str
) -> None:
    await ledger.put_tenant("acme", tier="free", actor="test")
    with (
        psycopg.connect(database_url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"),
    ):
        connection.execute(change)
    assert len(await ledger.list_audit(limit=10)) == 1


async def test_an_erasure_may_remove_its_own_tenants_lines_and_change_none(
    ledger: Ledger, database_url: str
) -> None:
    for tenant in ("acme", "beta"):
        await ledger.put_tenant(tenant, tier="free", actor="test")
    erasing = "SELECT set_config('partywall.erasing', 'acme', true)"
    for change in (
        "UPDATE audit SET actor = 'x' WHERE tenant = 'acme'",
        "DELETE FROM audit WHERE tenant = 'beta'",
        "TRUNCATE audit",
    ):
        with psycopg.connect(database_url) as connection:
            connection.execute(erasing)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"):
                connection.execute(change)
    with psycopg.connect(database_url) as connection:
        connection.execute(erasing)
        connection.execute("DELETE FROM audit WHERE tenant = 'acme'")
    assert {line.tenant for line in await ledger.list_audit(limit=10)} == {"beta"}
