"""A store that is away is 503 with Retry-After, never a denial."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from partywall_service.api import create_api
from partywall_service.api.auth import Principal
from partywall_service.api.hot import HotEndpoints
from partywall_service.engine.base import StoreError
from partywall_service.ledger import LedgerUnavailable
from tests.support.api import problem_of

BODY = {"items": {"users": 1}}
RESERVATION = "reservations/d0f3a9"


class Away:
    """An authenticator that knows everybody, and quotas that nobody can be told of."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def known(self, _: str) -> Principal:
        return Principal("host", None, "test")

    async def authenticate(self, _: str | None) -> Principal:
        return Principal("host", None, "test")

    async def _fail(self, *_: Any, **__: Any) -> None:
        raise self._error

    consume = release = reserve = settle = set_used = read = preview = list_entries = _fail


@pytest.mark.parametrize("error", [LedgerUnavailable("gone"), StoreError("gone")])
@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("POST", "quotas/consume", BODY),
        ("POST", "quotas/release", BODY),
        ("POST", "quotas/reserve", BODY),
        ("POST", f"quotas/{RESERVATION}/commit", {}),
        ("POST", f"quotas/{RESERVATION}/cancel", None),
        ("PUT", "quotas/users", {"used": 1}),
        ("GET", "quotas", None),
        ("GET", "ledger", None),
        ("GET", "preview?tier=free", None),
    ],
)
async def test_a_store_that_is_away_denies_nothing(
    error: Exception, method: str, rest: str, body: Any
) -> None:
    away = Away(error)
    api = create_api()
    policy = SimpleNamespace(current=SimpleNamespace(tiers={"free": None}))
    api.state.parts = SimpleNamespace(authenticator=away, quotas=away, policy=policy)
    hot = HotEndpoints(api)
    hot.open(SimpleNamespace(authenticator=away, quotas=away))  # type: ignore[arg-type] # a stand-in
    transport = httpx.ASGITransport(hot)  # type: ignore[arg-type] # httpx names the types otherwise
    headers = {"Authorization": "Bearer token"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://sidecar", headers=headers
    ) as client:
        answer = await client.request(method, f"/v1/tenants/acme/{rest}", json=body)
    problem_of(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_before_the_start_there_is_no_answer() -> None:
    transport = httpx.ASGITransport(HotEndpoints(create_api()))  # type: ignore[arg-type] # as above
    async with httpx.AsyncClient(transport=transport, base_url="http://sidecar") as client:
        answer = await client.post("/v1/tenants/acme/quotas/consume", json=BODY)
    problem_of(answer, 503, "unavailable")
