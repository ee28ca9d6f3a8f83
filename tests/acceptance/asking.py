"""How acceptance tests ask a sidecar."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from tests.support.sidecar import Sidecar

T = TypeVar("T")

PATIENT = {"PARTYWALL_REDIS_TIMEOUT_MS": "30000"}
"""A deadline that a busy machine does not miss: for tests of what is exact."""


def fresh_tenant() -> str:
    """An id that no test has used."""
    return f"t-{uuid.uuid4().hex[:12]}"


async def put_tenant(client: httpx.AsyncClient, tenant: str, **body: Any) -> dict[str, Any]:
    """The tenant, registered or changed; of the tier `free` unless told otherwise."""
    answer = await client.put(f"/v1/tenants/{tenant}", json={"tier": "free", **body})
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


async def check(client: httpx.AsyncClient, tenant: str, **body: Any) -> dict[str, Any]:
    """The decision on one check."""
    answer = await client.post("/v1/check", json={"tenant": tenant, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def checks(client: httpx.AsyncClient, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decisions on several checks in one request."""
    answer = await client.post("/v1/checks", json=asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


async def new_token(client: httpx.AsyncClient, scope: str) -> dict[str, Any]:
    """A new token with its secret, as the API gives it."""
    answer = await client.post("/v1/tokens", json={"scope": scope, "name": "for a test"})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def audit(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The whole audit log, newest first."""
    entries: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"page_size": "1000"} | ({"cursor": cursor} if cursor else {})
        answer = await client.get("/v1/audit", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        entries += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            return entries


async def until(
    ask: Callable[[], Awaitable[T]], *errors: type[Exception], seconds: float = 20
) -> tuple[T, float]:
    """What `ask` gives as soon as it is true without one of `errors`, and after how many seconds.

    For what another process does, of which nothing tells us.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    while True:
        try:
            if answer := await ask():
                return answer, loop.time() - start
        except errors:
            if loop.time() - start > seconds:
                raise
        assert loop.time() - start < seconds, f"it did not come to be in {seconds:g} s"
        await asyncio.sleep(0.01)


@dataclass
class Load:
    """Checks without end, on several connections, while the block lasts.

    Attributes:
        decisions: every answer with status 200.
        statuses: how many answers had each status.
        latencies: of every answer, in seconds.
        errors: what the client could not send or read.
    """

    sidecar: Sidecar
    body: Callable[[], dict[str, Any]]
    connections: int = 8

    def __post_init__(self) -> None:
        self.decisions: list[dict[str, Any]] = []
        self.statuses: dict[int, int] = {}
        self.latencies: list[float] = []
        self.errors: list[str] = []

    async def __aenter__(self) -> "Load":
        self._over = False
        self._client = self.sidecar.client()
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self.connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def forget(self) -> None:
        """Begin the count anew; what is under way is counted when it is answered."""
        self.__post_init__()

    async def answers(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = sum(self.statuses.values()) + count
        await until(self._reached(wanted), seconds=60 + count / 20)

    def _reached(self, wanted: int) -> Callable[[], Awaitable[bool]]:
        async def reached() -> bool:
            return sum(self.statuses.values()) >= wanted

        return reached

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._over:
            begin = loop.time()
            try:
                answer = await self._client.post("/v1/check", json=self.body())
            except httpx.TransportError as exc:
                self.errors.append(repr(exc))
                continue
            self.latencies.append(loop.time() - begin)
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 200:
                self.decisions.append(answer.json())
