"""One Chromium, and one sidecar with something to see, for all tests of this folder.

Tests that change anything bring a tenant of their own.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, StorageState

from tests.acceptance.asking import new_token, put_tenant
from tests.browser.installation import POLICY, fill
from tests.support.browser import DESKTOP, PHONE, Visitor, running_chromium
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

PATIENCE = 15_000
"""Milliseconds that a page may take on a busy machine."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def _started(chromium: Browser, test_run: TestRun) -> Iterator[Sidecar]:
    # The browser comes first: where there is none, nothing need be started.
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shown(_started: Sidecar) -> Sidecar:
    """The sidecar whose dashboard is looked at."""
    async with _started.client() as client:
        await fill(_started, client)
    return _started


@pytest_asyncio.fixture(loop_scope="session")
async def api(shown: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    """Its REST API, for the admin."""
    async with shown.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(api: httpx.AsyncClient) -> str:
    """A tenant of this test alone, of the tier free."""
    name = f"shop-{uuid4().hex[:8]}"
    await put_tenant(api, name, name="The shop")
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenant_token(shown: Sidecar) -> str:
    """The token with which acme sees its own page."""
    async with shown.client() as client:
        return str((await new_token(client, "tenant:acme"))["token"])


class VisitorFactory(Protocol):
    """`visitor(token)`: somebody who has signed in; without a token, who has not."""

    async def __call__(
        self,
        token: str | None = None,
        *,
        script: bool = False,
        size: tuple[int, int] = DESKTOP,
    ) -> Visitor: ...


@pytest.fixture(scope="session")
def sessions() -> dict[str, StorageState]:
    """What browsers keep of who has signed in, by token: to sign in takes a moment."""
    return {}


@asynccontextmanager
async def _visitors(
    chromium: Browser, shown: Sidecar, sessions: dict[str, StorageState]
) -> AsyncIterator[VisitorFactory]:
    made: list[Visitor] = []

    async def come(
        token: str | None = None,
        *,
        script: bool = False,
        size: tuple[int, int] = DESKTOP,
    ) -> Visitor:
        width, height = size
        context = await chromium.new_context(
            base_url=shown.url,
            is_mobile=size == PHONE,
            java_script_enabled=script,
            reduced_motion="reduce",  # so that what is scrolled to is there
            storage_state=sessions.get(token) if token else None,
            viewport={"width": width, "height": height},
        )
        context.set_default_timeout(PATIENCE)
        one = Visitor(context, await context.new_page(), shown.url)
        made.append(one)
        if token and token not in sessions:
            await one.sign_in(token)
            sessions[token] = await context.storage_state()
        return one

    yield come
    for one in made:
        await one.context.close()
    assert [one.faults for one in made] == [[] for _ in made]


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(
    chromium: Browser, shown: Sidecar, sessions: dict[str, StorageState]
) -> AsyncIterator[VisitorFactory]:
    """Visitors, whose pages must have been without a fault in the end.

    Scripts do not run in their browsers, as the pages need none; `script` lets them, for tools that
    look at the page from within.
    """
    async with _visitors(chromium, shown, sessions) as come:
        yield come


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lasting_visitor(
    chromium: Browser, shown: Sidecar, sessions: dict[str, StorageState]
) -> AsyncIterator[VisitorFactory]:
    """Likewise, for all tests of a file."""
    async with _visitors(chromium, shown, sessions) as come:
        yield come


@pytest_asyncio.fixture(loop_scope="session")
async def admin(visitor: VisitorFactory) -> Visitor:
    """The admin, signed in, without scripts."""
    return await visitor(ADMIN_TOKEN)
