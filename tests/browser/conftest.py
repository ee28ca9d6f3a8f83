"""One Chromium, and one sidecar with something to see, for all tests of this folder.

Tests that change anything bring a tenant of their own.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Protocol
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Cookie

from tests.acceptance.asking import new_token, put_tenant
from tests.browser.installation import POLICY, fill
from tests.support.browser import Visitor, new_visitor, running_chromium
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def chromium() -> AsyncIterator[Browser]:
    async with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def _started(chromium: Browser, test_run: TestRun) -> Iterator[Sidecar]:
    # The browser comes first: where there is none, nothing need be started.
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shown(_started: Sidecar) -> Sidecar:
    """The sidecar whose dashboard is looked at."""
    async with _started.client() as client:
        await fill(_started, client)
    return _started


@pytest_asyncio.fixture(loop_scope="package")
async def api(shown: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    """Its REST API, for the admin."""
    async with shown.client() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="package")
async def tenant(api: httpx.AsyncClient) -> str:
    """A tenant of this test alone, of the tier free."""
    name = f"shop-{uuid4().hex[:8]}"
    await put_tenant(api, name, name="The shop")
    return name


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def tenant_token(shown: Sidecar) -> str:
    """The token with which acme sees its own page."""
    async with shown.client() as client:
        return str((await new_token(client, "tenant:acme"))["token"])


class VisitorFactory(Protocol):
    """`visitor(token)`: somebody who has signed in; without a token, who has not.

    Scripts do not run in the browser, as the pages need none; `script` lets them, for tools that
    look at the page from within. Of either kind there is one at a time.
    """

    async def __call__(self, token: str | None = None, *, script: bool = False) -> Visitor: ...


@pytest.fixture(scope="package")
def visitors() -> dict[bool, Visitor]:
    """Those there are, by whether scripts run: a new browser context costs more than most tests."""
    return {}


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def visitor(
    chromium: Browser, shown: Sidecar, visitors: dict[bool, Visitor]
) -> VisitorFactory:
    """Visitors, each as new as if nobody had been there before."""
    sessions: dict[str, list[Cookie]] = {}

    async def come(token: str | None = None, *, script: bool = False) -> Visitor:
        if script not in visitors:
            visitors[script] = await new_visitor(chromium, shown.url, script=script)
        one = visitors[script]
        await one.begin_anew(sessions.get(token or "", []))
        if token and token not in sessions:
            await one.sign_in(token)
            sessions[token] = await one.context.cookies()
        return one

    return come


@pytest.fixture(autouse=True)
def _without_a_fault(visitors: dict[bool, Visitor]) -> Iterator[None]:
    """No test ends well on whose pages something was wrong."""
    yield
    faults = [fault for one in visitors.values() for fault in one.take_faults()]
    assert faults == []


@pytest_asyncio.fixture(loop_scope="package")
async def admin(visitor: VisitorFactory) -> Visitor:
    """The admin, signed in, without scripts."""
    return await visitor(ADMIN_TOKEN)
