"""Fixtures on top of the real servers."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import Ledger, create_ledger_engine


@pytest.fixture
async def ledger_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_ledger_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def ledger(ledger_engine: AsyncEngine) -> Ledger:
    """A ledger on a database of this test alone."""
    return Ledger(ledger_engine)
