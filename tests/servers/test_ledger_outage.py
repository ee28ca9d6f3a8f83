"""What the ledger does while PostgreSQL is away, and after."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest

from partywall_service.embedded import PostgresServer
from partywall_service.ledger import Ledger, LedgerUnavailable, create_ledger_engine
from partywall_service.ledger.engine import POOL_OVERFLOW, POOL_SIZE, connection_parameters
from partywall_service.ledger.migrations import at_head, upgrade


@pytest.fixture
async def own_ledger(own_postgres: PostgresServer) -> AsyncIterator[Ledger]:
    """A ledger on a server of this test alone, with a tenant in it and its pool warm."""
    upgrade(own_postgres.url)
    engine = create_ledger_engine(own_postgres.url, statement_timeout=0.5)
    ledger = Ledger(engine)
    await ledger.put_tenant("acme", tier="free", actor="test")
    yield ledger
    await engine.dispose()


def calls(ledger: Ledger) -> list[object]:
    return [
        ledger.put_tenant("acme", tier="pro", actor="test"),
        ledger.get_tenant("acme"),
        ledger.get_tenant("acme", scope="acme"),
        ledger.list_tenants(limit=1),
        ledger.erase_tenant("acme", actor="test"),
        ledger.put_override("acme", "limits", "r", 1, expires_at=None, reason="", author="test"),
        ledger.list_overrides("acme", limit=1),
        ledger.delete_override("acme", "limits", "r", actor="test"),
        ledger.create_token("host", "x", actor="test"),
        ledger.list_tokens(limit=1),
        ledger.revoke_token("0" * 12, actor="test"),
        ledger.find_tokens(["0" * 12]),
        ledger.list_audit(limit=1),
        ledger.load_many(["acme"]),
        ledger.missing_tiers(["free"]),
        ledger.ping(),
        at_head(ledger._engine),
    ]


async def test_every_call_says_unavailable_and_recovers_by_itself(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    own_postgres.stop()
    for call in calls(own_ledger):
        with pytest.raises(LedgerUnavailable) as outage:
            await call  # type: ignore[misc] # coroutines of many kinds
        assert outage.value.__cause__ is not None
    own_postgres.start()
    await own_ledger.ping()
    assert await own_ledger.get_tenant("acme") is not None


async def test_a_restart_between_two_calls_fails_none(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    await asyncio.gather(*(own_ledger.ping() for _ in range(4)))
    own_postgres.stop()
    own_postgres.start()
    await asyncio.gather(*(own_ledger.put_tenant(f"t{n}", tier="t", actor="x") for n in range(8)))


async def test_look_ups_on_their_own_connection_get_over_a_restart_too(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    assert await own_ledger.load_many(["acme"])
    own_postgres.stop()
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            await own_ledger.load_many(["acme"])
    own_postgres.start()
    assert await own_ledger.load_many(["acme"])
    own_postgres.stop()
    own_postgres.start()
    found = await asyncio.gather(*(own_ledger.load_many(["acme"]) for _ in range(8)))
    assert all("acme" in one for one in found)


async def test_a_killed_server_keeps_what_was_acknowledged(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    _, token = await own_ledger.create_token("host", "ci", actor="test")
    lines = await own_ledger.list_audit(limit=10)
    assert own_postgres.pid is not None
    os.kill(own_postgres.pid, signal.SIGKILL)
    own_postgres.wait()
    own_postgres.start()
    assert await own_ledger.list_audit(limit=10) == lines
    assert await own_ledger.get_tenant("acme") is not None
    assert token.split("_")[1] in await own_ledger.find_tokens([token.split("_")[1]])


async def test_a_frozen_server_holds_no_call_for_ever(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    """The server keeps `statement_timeout`, so a frozen one needs a deadline on this side."""
    frozen = _freeze_backends(own_postgres)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(LedgerUnavailable):
                await own_ledger.get_tenant("acme")
    finally:
        _thaw(frozen)
    assert await own_ledger.get_tenant("acme") is not None


async def test_a_callers_own_deadline_holds_on_a_frozen_server(
    own_postgres: PostgresServer, own_ledger: Ledger
) -> None:
    """A cancelled call leaves; it does not stay to see its statement cancelled."""
    frozen = _freeze_backends(own_postgres)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await own_ledger.load_many(["acme"])
        # The driver alone stays for ten seconds.
        assert loop.time() - begun < 5
    finally:
        _thaw(frozen)
    assert await own_ledger.load_many(["acme"])


def _freeze_backends(server: PostgresServer) -> list[int]:
    """Stops the server's every process; what it is asked meanwhile is never answered."""
    with psycopg.connect(server.url) as connection:
        pids = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity").fetchall()]
    assert server.pid is not None
    frozen = []
    for pid in [server.pid, *pids]:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:  # the connection that asked for the list
            continue
        frozen.append(pid)
    return frozen


def _thaw(frozen: list[int]) -> None:
    for pid in frozen:
        with suppress(ProcessLookupError):  # it was already leaving when it was stopped
            os.kill(pid, signal.SIGCONT)


async def test_a_statement_that_waits_too_long_is_given_up(own_ledger: Ledger) -> None:
    async with own_ledger._engine.begin() as other:
        await other.exec_driver_sql("LOCK TABLE tenants")
        with pytest.raises(LedgerUnavailable, match="statement timeout"):
            await own_ledger.get_tenant("acme")


async def test_an_exhausted_pool_is_an_outage_too(
    own_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_ledger._engine.pool, "_timeout", 0.05)
    held = [await own_ledger._engine.connect() for _ in range(POOL_SIZE + POOL_OVERFLOW)]
    with pytest.raises(LedgerUnavailable):
        await own_ledger.ping()
    for connection in held:
        await connection.close()
    await own_ledger.ping()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
async def test_every_spelling_of_the_url_connects(database_url: str, scheme: str) -> None:
    engine = create_ledger_engine(database_url.replace("postgresql", scheme, 1))
    await Ledger(engine).ping()
    await engine.dispose()


async def test_the_urls_own_options_win(database_url: str) -> None:
    url = f"{database_url}&options=-c%20statement_timeout%3D1234&application_name=mine"
    engine = create_ledger_engine(url)
    async with engine.connect() as connection:
        shown = [
            (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one()
            for name in ("statement_timeout", "application_name", "timezone")
        ]
    await engine.dispose()
    assert shown == ["1234ms", "mine", "UTC"]


def test_what_is_no_url_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="expected a database URL") as refusal:
        connection_parameters("postgresql://user:s3cret@host:port:port/db?nonsense=1")
    assert "s3cret" not in str(refusal.value)
