"""The REST API in-process, on a database of each test's own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.api import ADMIN, Caller, api_with, hand_made_parts


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Caller]:
    """The API as the admin sees it."""
    async with hand_made_parts(database_url) as parts:
        yield Caller(api_with(parts), ADMIN)
