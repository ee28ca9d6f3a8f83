"""The REST API in-process, on a real ledger: what the sidecar's `app` wires, wired by hand."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.api import create_api
from partywall_service.api.auth import Authenticator
from partywall_service.api.factory import Api
from partywall_service.directory import Directory
from partywall_service.engine.breaker import CircuitBreaker
from partywall_service.engine.connect import connect
from partywall_service.engine.memory import MemoryEngine
from partywall_service.jobs.connect import NoServer
from partywall_service.ledger import Ledger, create_ledger_engine
from partywall_service.ledger.told import Rows
from partywall_service.metrics import Metrics
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Limit, Policy, Quota, Rate, Resource, Tier
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.gate import RedisGate
from partywall_service.quotas.service import Quotas
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.volatile import VolatileQuotas
from partywall_service.tenants.erasure import Erasure
from partywall_service.tenants.export import Export
from partywall_service.tenants.jobs import TenantJobs
from partywall_service.usage.store import UsageStore
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.support.usage import HandMadeUsage, hand_made_usage

ADMIN = "the-admin-token"


def policy(*, default_tier: str | None = None) -> Policy:
    """Three tiers, one limit, two resources."""
    tiers = {
        name: Tier(
            name,
            features=features,
            limits=MappingProxyType({"requests": Limit("requests", (Rate(quota, 60),))}),
            quotas=MappingProxyType(
                {"users": Quota("users", users), "storage": Quota("storage", None)}
            ),
        )
        for name, quota, users, features in (
            ("free", 100, 5, ()),
            ("pro", 1000, 50, ("advanced-analytics",)),
            ("enterprise", 10000, None, ("advanced-analytics", "audit-export")),
        )
    }
    resources = {"users": Resource("users"), "storage": Resource("storage", unit="bytes")}
    return Policy(MappingProxyType(tiers), default_tier, MappingProxyType(resources), "0" * 64)


async def _no_beat() -> None:
    """The engine in memory has no store that could be lost."""


@dataclass(frozen=True)
class HandMadeParts:
    """What `deps.Parts` asks for."""

    ledger: Ledger
    policy: PolicyHolder
    authenticator: Authenticator
    directory: Directory
    quotas: Quotas
    jobs: FairQueue
    erasure: Erasure
    export: Export
    usage: HandMadeUsage
    breaker: CircuitBreaker = field(
        default_factory=lambda: CircuitBreaker(MemoryEngine(), _no_beat)
    )
    metrics: Metrics = field(default_factory=Metrics)


class NoKeys:
    """The Redis of limits, where there is none."""

    async def erase(self, _tenant: str) -> int:
        return 0

    async def told(self, _tenant: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield []


async def _nobody_else(_seconds: float) -> None:
    """No other sidecar is to hear of anything."""


def durable_quotas(engine: AsyncEngine, directory: Directory, holder: PolicyHolder) -> Quotas:
    """Without a Redis: every resource of the policy is durable, and the gate remembers nothing."""
    store = QuotaStore(engine)
    client = connect("unix:///nowhere")
    return Quotas(
        directory,
        holder,
        store,
        GroupCommit(store),
        VolatileQuotas(client),
        RedisGate(client),
        Metrics().quotas,
    )


@asynccontextmanager
async def hand_made_parts(
    database_url: str, *, default_tier: str | None = None, jobs: FairQueue | None = None
) -> AsyncIterator[HandMadeParts]:
    """Parts on the database, closed at the end; without `jobs` there is no place for any."""
    engine = create_ledger_engine(database_url)
    ledger, holder = Ledger(engine), PolicyHolder(policy(default_tier=default_tier))
    try:
        directory = Directory(ledger, holder, size=1000)
        queue = jobs or FairQueue(FairRedis(NoServer()))
        quotas = durable_quotas(engine, directory, holder)
        yield HandMadeParts(
            ledger,
            holder,
            Authenticator(ledger, ADMIN),
            directory,
            quotas,
            queue,
            Erasure(
                ledger,
                UsageStore.erase,
                NoKeys(),
                TenantJobs(queue),
                directory,
                pause=_nobody_else,
            ),
            Export(Rows(engine), NoKeys(), TenantJobs(queue), ()),
            hand_made_usage(engine, ledger, holder, quotas),
        )
    finally:
        await engine.dispose()


class Caller:
    """One token's view of an API.

    Attributes:
        api: the app itself.
        http: the client underneath, for requests that no helper here would send.
    """

    def __init__(self, api: Api, token: str | None) -> None:
        self.api = api
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(api)  # raises what the app lets out: it must be nothing
        self.http = httpx.AsyncClient(
            transport=transport, base_url="http://sidecar", headers=headers
        )

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, params=params)

    async def put(self, path: str, body: Any) -> httpx.Response:
        return await self.http.put(path, json=body)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post(path, json=body, headers=headers)

    async def delete(self, path: str) -> httpx.Response:
        return await self.http.delete(path)

    def with_token(self, token: str | None) -> "Caller":
        """The same API, called by somebody else."""
        return Caller(self.api, token)

    async def token(self, scope: str) -> str:
        """A new token of that scope, made by this caller."""
        answer = await self.post("/v1/tokens", {"scope": scope, "name": scope})
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        return token

    async def caller(self, scope: str) -> "Caller":
        """The same API, called with a new token of that scope."""
        return self.with_token(await self.token(scope))


def api_with(parts: object) -> Api:
    """The API with these parts, as if its lifespan had begun."""
    api = create_api()
    api.state.parts = parts
    return api


def problem_of(answer: httpx.Response, status: int, slug: str) -> Mapping[str, Any]:
    """The problem in an answer, once it is shown to be that one and well formed."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:partywall:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def fields_of(answer: httpx.Response) -> list[str]:
    """The fields an `invalid-request` names."""
    errors = problem_of(answer, 422, "invalid-request")["errors"]
    assert all(error["reason"] for error in errors)
    return [error["field"] for error in errors]
