"""Hearing of changes, on a real PostgreSQL that comes and goes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from partywall_service.embedded import PostgresServer
from partywall_service.ledger import Change, DomainTaken, Ledger, create_ledger_engine, listen
from partywall_service.ledger.migrations import upgrade

RESET = "reset"


class Heard:
    """Everything a listener was told, in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change | str] = asyncio.Queue()

    async def next(self) -> Change | str:
        async with asyncio.timeout(30):
            return await self.queue.get()

    def nothing(self) -> bool:
        return self.queue.empty()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(
        listen(url, heard.queue.put_nowait, lambda: heard.queue.put_nowait(RESET))
    )
    try:
        yield heard
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_every_change_is_heard_in_order_after_a_reset(
    ledger: Ledger, database_url: str
) -> None:
    async with listening(database_url) as heard:
        assert await heard.next() == RESET
        await ledger.put_tenant("acme", tier="free", actor="test")
        await ledger.put_tenant("acme", tier="pro", actor="test")
        await ledger.put_override(
            "acme", "limits", "r", 1, expires_at=None, reason="", author="test"
        )
        await ledger.delete_override("acme", "limits", "r", actor="test")
        for _ in range(4):
            assert await heard.next() == Change("tenant", "acme")
        token, _ = await ledger.create_token("host", "ci", actor="test")
        assert await heard.next() == Change("token", token.id)
        await ledger.revoke_token(token.id, actor="test")
        assert await heard.next() == Change("token", token.id)
        own, _ = await ledger.create_token("tenant:acme", "own", actor="test")
        assert await heard.next() == Change("token", own.id)
        await ledger.erase_tenant("acme", actor="test")
        assert await heard.next() == Change("tenant", "acme")
        assert await heard.next() == Change("token", own.id)
        assert heard.nothing()


async def test_nothing_is_heard_of_what_did_not_change(ledger: Ledger, database_url: str) -> None:
    await ledger.put_tenant("acme", tier="free", domains=["a.example"], actor="test")
    async with listening(database_url) as heard:
        assert await heard.next() == RESET
        await ledger.put_tenant("acme", tier="free", actor="test")
        await ledger.erase_tenant("nobody", actor="test")
        with pytest.raises(DomainTaken):
            await ledger.put_tenant("other", tier="free", domains=["a.example"], actor="test")
        await ledger.put_tenant("last", tier="free", actor="test")
        assert await heard.next() == Change("tenant", "last")


async def test_a_change_can_be_read_once_it_is_heard(ledger: Ledger, database_url: str) -> None:
    async with listening(database_url) as heard:
        await heard.next()
        for n in range(20):
            change, _ = await asyncio.gather(
                heard.next(), ledger.put_tenant(f"t{n}", tier="free", actor="test")
            )
            assert isinstance(change, Change)
            assert await ledger.get_tenant(change.id) is not None


async def test_notices_of_an_unknown_kind_are_passed_over(
    ledger: Ledger, database_url: str
) -> None:
    async with listening(database_url) as heard:
        await heard.next()
        with psycopg.connect(database_url, autocommit=True) as connection:
            for payload in ("", "tenant", "tenant:", "policy:new", "nonsense"):
                connection.execute("SELECT pg_notify('partywall', %s)", [payload])
        await ledger.put_tenant("a:b", tier="free", actor="test")
        assert await heard.next() == Change("tenant", "a:b")


async def test_after_a_restart_it_listens_again_and_says_so(own_postgres: PostgresServer) -> None:
    upgrade(own_postgres.url)
    engine = create_ledger_engine(own_postgres.url)
    async with listening(own_postgres.url) as heard:
        assert await heard.next() == RESET
        own_postgres.stop()
        own_postgres.start()
        assert await heard.next() == RESET
        await Ledger(engine).put_tenant("acme", tier="free", actor="test")
        assert await heard.next() == Change("tenant", "acme")
    await engine.dispose()


async def test_a_server_that_is_not_there_yet_is_waited_for(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    async with listening(own_postgres.url) as heard:
        assert heard.nothing()
        own_postgres.start()
        assert await heard.next() == RESET


async def test_a_connection_that_died_in_silence_is_found(
    ledger: Ledger, database_url: str
) -> None:
    """Its server process is frozen: no error ever comes, only the heartbeat can tell."""
    async with listening(database_url) as heard:
        assert await heard.next() == RESET
        with psycopg.connect(database_url) as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'partywall listener'"
                " AND datname = current_database()"
            ).fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGSTOP)
        try:
            assert await heard.next() == RESET
        finally:
            os.kill(row[0], signal.SIGCONT)
        await ledger.put_tenant("acme", tier="free", actor="test")
        assert await heard.next() == Change("tenant", "acme")
