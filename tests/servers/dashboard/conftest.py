"""The dashboard in-process, as a browser sees it.

A database costs more than most of these tests, so those of a file share one and bring tenants of
their own.
"""

import dataclasses
import html
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service import dashboard
from partywall_service.usage.neighbours import Neighbours, NeighbourStore
from partywall_service.usage.pulse import PulseStore
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.spans import Step
from partywall_workers.queue import FairQueue
from tests.support.api import ADMIN, HandMadeParts, api_with, hand_made_parts
from tests.support.run import TestRun

HOME = "/dashboard"


class GivenPoints:
    """A reader whose points a test gives.

    Attributes:
        given: what it answers with.
        asked: the scopes it was asked under.
    """

    def __init__(self) -> None:
        self.given: list[UsagePoint] = []
        self.asked: list[str | None] = []

    async def points(
        self, tenant: str, start: datetime, end: datetime, step: Step, scope: str | None = None
    ) -> Sequence[UsagePoint]:
        self.asked.append(scope)
        return [one for one in self.given if start <= one.start < end]


class Browser:
    """Who looks at the pages: keeps cookies, follows redirects, and sends forms as they stand."""

    def __init__(self, app: object, parts: HandMadeParts) -> None:
        self.app = app
        self.parts = parts
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),  # type: ignore[arg-type] # an ASGI app
            base_url="http://sidecar",
            follow_redirects=True,
            headers={"Sec-Fetch-Site": "same-origin"},
        )

    def another(self) -> "Browser":
        """Somebody else, who has not signed in."""
        return Browser(self.app, self.parts)

    async def sign_in(self, token: str, following: str = "") -> httpx.Response:
        return await self.http.post(f"{HOME}/sign-in", data={"token": token, "next": following})

    async def get(self, path: str = "", **params: str) -> httpx.Response:
        return await self.http.get(f"{HOME}{path}", params=params)

    async def send(self, page: httpx.Response, action: str, **fields: str) -> httpx.Response:
        """Sends a form of the page: the one with this action, with these fields filled in."""
        form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
        assert form is not None, f"the page has no form for {action}"
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[0])
        given = {name: html.unescape(value) for name, value in hidden}
        return await self.http.post(action, data={**given, **fields})

    async def token(self, scope: str) -> str:
        _, token = await self.parts.ledger.create_token(scope, scope, actor="test")
        return token

    async def as_(self, scope: str) -> "Browser":
        """Somebody with a new token of that scope, signed in."""
        other = self.another()
        answer = await other.sign_in(await self.token(scope))
        assert answer.status_code == 200, answer.text
        return other


@pytest.fixture(scope="module")
def database_url(test_run: TestRun) -> Iterator[str]:
    url = test_run.create_database()
    yield url
    test_run.drop_database(url)


@pytest.fixture
def usage(ledger_engine: AsyncEngine) -> SimpleNamespace:
    """What `Parts.usage` has of the pages' interest; its points are a test's own."""
    return SimpleNamespace(reader=GivenPoints(), pulse=PulseStore(ledger_engine))


@pytest.fixture
async def visitor(
    database_url: str, ledger_engine: AsyncEngine, usage: SimpleNamespace, jobs_queue: FairQueue
) -> AsyncIterator[Browser]:
    """Nobody that is known yet."""
    async with hand_made_parts(database_url, jobs=jobs_queue) as made:
        usage.neighbours = Neighbours(NeighbourStore(ledger_engine), (), made.policy)
        given = {one.name: getattr(made, one.name) for one in dataclasses.fields(made)}
        parts = SimpleNamespace(**{**given, "usage": usage})
        api = api_with(parts)
        api.include_router(dashboard.router)
        yield Browser(api, made)


@pytest.fixture
async def admin(visitor: Browser) -> Browser:
    """The admin, signed in."""
    answer = await visitor.sign_in(ADMIN)
    assert answer.status_code == 200, answer.text
    return visitor
