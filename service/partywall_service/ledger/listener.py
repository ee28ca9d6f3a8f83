"""Hears what other sidecars changed, and notices when it can no longer hear."""

import asyncio
from collections.abc import Callable

import structlog
from psycopg import Error

from partywall_service.ledger.changes import CHANNEL, Change
from partywall_service.ledger.engine import BoundedConnection, connection_parameters

HEARTBEAT = 2.0
"""Seconds between two questions to the server, and the time it has to answer one: a connection
that died in silence is found within twice this."""

FIRST_RETRY = 0.1
LAST_RETRY = 2.0

_log = structlog.get_logger(__name__)


class _Line(BoundedConnection):
    deadline = HEARTBEAT


async def listen(
    database_url: str,
    on_change: Callable[[Change], None],
    on_reset: Callable[[], None],
    on_lost: Callable[[], None] = lambda: None,
) -> None:
    """Runs until cancelled, calling back for every change committed anywhere.

    Args:
        database_url: as for `connection_parameters`.
        on_change: called with each change, in the order of the commits.
        on_reset: called whenever listening (re)starts: whatever was cached before may have changed
            unheard. Changes committed after this call are heard.
        on_lost: called whenever PostgreSQL cannot be heard, until the next `on_reset`.

    Raises:
        ValueError: the URL cannot be read.
    """
    parameters = connection_parameters(database_url, application="partywall listener")
    delay = FIRST_RETRY
    while True:
        try:
            async with await _Line.connect(**parameters, autocommit=True) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                delay = FIRST_RETRY
                on_reset()
                await _relay(connection, on_change)
        except (Error, OSError) as error:
            on_lost()
            reason = " ".join(str(error).split())
            _log.warning("changes.unheard", reason=reason, retry_in=delay)
        await asyncio.sleep(delay)
        delay = min(delay * 2, LAST_RETRY)


async def _relay(connection: _Line, on_change: Callable[[Change], None]) -> None:
    """Passes notices on until the connection fails."""
    while True:
        async for notice in connection.notifies(timeout=HEARTBEAT):
            change = Change.parse(notice.payload)
            if change is None:
                _log.info("changes.unknown_kind", payload=notice.payload)
            else:
                on_change(change)
        await connection.execute("SELECT 1")
