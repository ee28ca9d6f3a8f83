"""Health for orchestrators, metrics for Prometheus."""

import asyncio
from ipaddress import ip_address

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from partywall_service.api.auth import presented_token
from partywall_service.api.deps import parts_of
from partywall_service.api.problems import Problem
from partywall_service.jobs.connect import answers
from partywall_service.ledger import Ledger
from partywall_service.ledger.errors import LedgerError

PING_DEADLINE = 0.5
"""Seconds PostgreSQL has to answer a readiness probe."""

router = APIRouter(tags=["operations"])


class Readiness(BaseModel):
    """Whether limits can be decided, and which parts are failing."""

    ready: bool
    degraded: list[str]


@router.get("/healthz", summary="The process lives", response_class=PlainTextResponse)
async def healthz() -> str:
    """Answers while the process can."""
    return "ok\n"


@router.get(
    "/readyz",
    summary="Limits can be decided",
    responses={200: {"model": Readiness}, 503: {"model": Readiness}},
)
async def readyz(request: Request) -> Response:
    """200 while limits can be decided, with the failing parts in `degraded`; else 503.

    Without Redis limits are decided by their `on_outage`, so only a policy whose every limit is
    `closed` is not ready then. Without PostgreSQL known tenants go on.
    Jobs may have a Redis of their own.
    """
    parts = parts_of(request)
    degraded = []
    ready = True
    if not parts.breaker.closed:
        degraded.append("redis")
        ready = any(
            limit.on_outage != "closed"
            for tier in parts.policy.current.tiers.values()
            for limit in tier.limits.values()
        )
    # Together: who probes gives all of it a second, as a rule.
    database, jobs = await asyncio.gather(_answers(parts.ledger), answers(parts.jobs))
    if not database:
        degraded.append("database")
    if not jobs:
        degraded.append("jobs")
    readiness = Readiness(ready=ready, degraded=degraded)
    return JSONResponse(readiness.model_dump(), status_code=200 if ready else 503)


async def _answers(ledger: Ledger) -> bool:
    try:
        async with asyncio.timeout(PING_DEADLINE):
            await ledger.ping()
    except (TimeoutError, LedgerError):
        return False
    return True


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "The text exposition format."}},
)
async def metrics(request: Request) -> Response:
    """Open to loopback; from elsewhere an admin's or a host's token is needed."""
    parts = parts_of(request)
    if not _from_loopback(request):
        principal = await parts.authenticator.authenticate(presented_token(request.headers.raw))
        if principal.scope == "tenant":
            raise Problem("forbidden", "metrics are of all tenants; a host's token is needed")
    return Response(await parts.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _from_loopback(request: Request) -> bool:
    if request.client is None:  # a Unix socket: whoever may open it is on this machine
        return True
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
