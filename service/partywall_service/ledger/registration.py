"""Tenants registered and changed, one or ten thousand, by the same few statements."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.changes import CHANNEL
from partywall_service.ledger.errors import DomainsTaken
from partywall_service.ledger.records import Status

SLICE = 500
"""Rows of one statement: between two of them the process decides checks."""

# Parallel lists travel as arrays: the same text, and so the same plan, for any number of rows.
_GIVEN = """
    unnest(CAST(:tenants AS text[]), CAST(:tiers AS text[]), CAST(:names AS text[]),
        CAST(:statuses AS text[])) AS given (tenant, tier, name, status)
"""
_INSERT = text(f"""
    INSERT INTO tenants (tenant, tier, name, status) SELECT * FROM {_GIVEN}
    ON CONFLICT DO NOTHING RETURNING tenant
""")  # noqa: S608 - no caller's text is in it
_LOCK = text("""
    SELECT tenant, tier, name, status FROM tenants
    WHERE tenant = ANY(CAST(:tenants AS text[])) ORDER BY tenant FOR UPDATE
""")
_UPDATE = text(f"""
    UPDATE tenants SET tier = given.tier, name = given.name, status = given.status,
        updated_at = clock_timestamp()
    FROM {_GIVEN} WHERE tenants.tenant = given.tenant
""")  # noqa: S608 - no caller's text is in it
_HELD = text("""
    SELECT domain, tenant FROM tenant_domains WHERE tenant = ANY(CAST(:tenants AS text[]))
""")
_LET_GO = text("DELETE FROM tenant_domains WHERE domain = ANY(CAST(:domains AS text[]))")
_TAKE = text("""
    INSERT INTO tenant_domains (domain, tenant)
    SELECT * FROM unnest(CAST(:domains AS text[]), CAST(:tenants AS text[]))
    ON CONFLICT DO NOTHING RETURNING domain
""")
_HOLDERS = text("""
    SELECT domain, tenant FROM tenant_domains WHERE domain = ANY(CAST(:domains AS text[]))
""")
# The audit lines and the notices in one round trip; the wall clock gives lines their order.
_RECORD = text("""
    WITH line AS (
        INSERT INTO audit (actor, action, tenant, detail)
        SELECT :actor, action, tenant, CAST(detail AS jsonb)
        FROM unnest(CAST(:actions AS text[]), CAST(:tenants AS text[]), CAST(:details AS text[]))
            AS given (action, tenant, detail)
    )
    SELECT pg_notify(:channel, 'tenant:' || tenant)
    FROM unnest(CAST(:tenants AS text[])) AS given (tenant)
""")


class Registration(NamedTuple):
    """A tenant to register or to change; None keeps what is there.

    Attributes:
        tenant: its id.
        tier: its tier.
        name: for people; a new tenant's is its id.
        domains: all of its domains, in any case and order; a new tenant has none.
        status: a new tenant's is for the whole call to say.
    """

    tenant: str
    tier: str
    name: str | None = None
    domains: Sequence[str] | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of registrations.

    Attributes:
        created: ids that are new.
        updated: ids that are not what they were.
        unchanged: how many were as asked already.
    """

    created: Collection[str]
    updated: Collection[str]
    unchanged: int


class _Standing(NamedTuple):
    """What a tenant has, besides its domains."""

    tier: str
    name: str
    status: str


async def register(
    connection: AsyncConnection,
    registrations: Sequence[Registration],
    *,
    actor: str,
    new_status: Status = "active",
) -> Registered:
    """Registers or changes tenants in the connection's transaction; it is to end right after.

    Everybody takes the tenants first, in the order of their ids, then domains in theirs, so that
    calls which want the same ones queue and do not deadlock.

    Args:
        connection: in a transaction.
        registrations: no tenant and no domain more than once.
        actor: for the audit log.
        new_status: what new tenants have for which none is named.

    Raises:
        DomainsTaken: other tenants have some of the domains; the transaction is to be rolled back.
        ValueError: a tenant or a domain is there twice.
    """
    asked = {one.tenant: one for one in sorted(registrations, key=lambda one: one.tenant)}
    wanted = {
        tenant: sorted({domain.lower() for domain in one.domains})
        for tenant, one in asked.items()
        if one.domains is not None
    }
    owners = {domain: tenant for tenant, domains in wanted.items() for domain in domains}
    if len(asked) < len(registrations) or len(owners) < sum(map(len, wanted.values())):
        raise ValueError("expected each tenant and each domain once")
    fresh = {
        tenant: _standing(one, _Standing(one.tier, tenant, new_status))
        for tenant, one in asked.items()
    }
    before = await _insert_or_lock(connection, fresh)
    held = await _move_domains(connection, wanted, owners, before)
    created: list[str] = []
    updated: list[str] = []
    for some in _slices(list(asked)):
        await asyncio.sleep(0)  # also where nothing is to be written
        details: dict[str, dict[str, Any]] = {}
        changed: dict[str, _Standing] = {}
        for tenant in some:
            there = before.get(tenant)
            if there is None:
                details[tenant] = {**fresh[tenant]._asdict(), "domains": wanted.get(tenant, [])}
            elif detail := _difference(
                asked[tenant], there, held.get(tenant, []), wanted.get(tenant)
            ):
                details[tenant] = detail
                changed[tenant] = _standing(asked[tenant], there)
        if changed:
            await connection.execute(_UPDATE, _columns(changed))
        if details:
            await _record(connection, actor, details, changed)
        created += details.keys() - changed.keys()
        updated += changed
    return Registered(created, updated, len(asked) - len(created) - len(updated))


async def _record(
    connection: AsyncConnection,
    actor: str,
    details: Mapping[str, Mapping[str, Any]],
    changed: Collection[str],
) -> None:
    """Writes the audit lines, and tells every sidecar; who is not `changed` is new."""
    texts = [msgspec.json.encode(detail).decode() for detail in details.values()]
    await connection.execute(
        _RECORD,
        {
            "actor": actor,
            "actions": [f"tenant.{'updated' if one in changed else 'created'}" for one in details],
            "tenants": list(details),
            "details": texts,
            "channel": CHANNEL,
        },
    )


def _standing(asked: Registration, default: _Standing) -> _Standing:
    return _Standing(
        asked.tier,
        default.name if asked.name is None else asked.name,
        default.status if asked.status is None else asked.status,
    )


def _difference(
    asked: Registration, there: _Standing, held: Sequence[str], wanted: Sequence[str] | None
) -> dict[str, Any]:
    """What changes, from what to what."""
    detail: dict[str, Any] = {}
    if wanted is not None and wanted != held:
        detail["domains"] = {"from": held, "to": wanted}
    for field, old in there._asdict().items():
        new = getattr(asked, field)
        if new is not None and new != old:
            detail[field] = {"from": old, "to": new}
    return detail


async def _insert_or_lock(
    connection: AsyncConnection, fresh: Mapping[str, _Standing]
) -> dict[str, _Standing]:
    """Inserts the tenants, or locks those there are and gives what they have.

    Two calls for one new tenant: the second waits for the first and then finds its row. The loop
    turns again only when such a row was deleted between the two statements.
    """
    before: dict[str, _Standing] = {}
    missing = dict(fresh)
    while missing:
        for some in _slices(list(missing)):
            given = _columns({tenant: missing[tenant] for tenant in some})
            for tenant in await connection.scalars(_INSERT, given):
                del missing[tenant]
        for some in _slices(list(missing)):
            there = await connection.execute(_LOCK, {"tenants": some})
            for tenant, *standing in there:
                before[tenant] = _Standing(*standing)
                del missing[tenant]
    return before


async def _move_domains(
    connection: AsyncConnection,
    wanted: Mapping[str, Sequence[str]],
    owners: Mapping[str, str],
    before: Collection[str],
) -> dict[str, list[str]]:
    """Gives each tenant the domains it is to have; returns those it had, in order.

    The tenants' rows are locked by this transaction, so nobody else moves their domains meanwhile.
    """
    held: dict[str, list[str]] = {}
    had: dict[str, str] = {}
    for some in _slices([tenant for tenant in wanted if tenant in before]):
        rows = await connection.execute(_HELD, {"tenants": some})
        had |= {row.domain: row.tenant for row in rows}
    for domain, tenant in sorted(had.items()):
        held.setdefault(tenant, []).append(domain)
    for some in _slices(sorted(one for one, tenant in had.items() if owners.get(one) != tenant)):
        await connection.execute(_LET_GO, {"domains": some})
    holders: dict[str, str] = {}
    for some in _slices(sorted(one for one, tenant in owners.items() if had.get(one) != tenant)):
        holders |= await _take_domains(connection, some, owners)
    if holders:
        raise DomainsTaken(holders)
    return held


async def _take_domains(
    connection: AsyncConnection, domains: Sequence[str], owners: Mapping[str, str]
) -> dict[str, str]:
    """Gives the domains to their owners; returns who else has some of them.

    The loop turns again only when a domain's holder let go of it between two statements.
    """
    missing = domains
    holders: dict[str, str] = {}
    while missing and not holders:
        given = {"domains": missing, "tenants": [owners[domain] for domain in missing]}
        taken = set(await connection.scalars(_TAKE, given))
        missing = [domain for domain in missing if domain not in taken]
        if missing:
            rows = await connection.execute(_HOLDERS, {"domains": missing})
            holders = {row.domain: row.tenant for row in rows}
    return holders


def _slices(rows: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(rows), SLICE):
        yield rows[start : start + SLICE]


def _columns(standings: Mapping[str, _Standing]) -> dict[str, list[str]]:
    return {
        "tenants": list(standings),
        "tiers": [one.tier for one in standings.values()],
        "names": [one.name for one in standings.values()],
        "statuses": [one.status for one in standings.values()],
    }
