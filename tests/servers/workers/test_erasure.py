"""A tenant is erased while its jobs run: they end, and leave nothing."""

import asyncio
from typing import Any

import pytest

from partywall_workers.errors import TenantErased
from partywall_workers.policy import JobPolicy
from tests.servers.workers.working import Ctx, Held, Work


async def traces(work: Work, tenant: str) -> list[str]:
    """Keys that name it."""
    keys = [key.decode() async for key in work.redis.scan_iter(count=10_000)]
    return [key for key in keys if work.queue.name in key and f":{tenant}" in key]


async def test_a_worker_cancels_what_it_runs_of_an_erased_tenant(work: Work) -> None:
    ended = asyncio.Event()
    held = Held()

    async def holding(ctx: Ctx) -> str:
        try:
            return await held(ctx)
        finally:
            ended.set()

    async with work.running(holding, lease=1):
        await work.enqueue(holding, _tenant="acme")
        await held.running()
        await work.queue.erase("acme")
        async with asyncio.timeout(30):
            await ended.wait()
    assert await traces(work, "acme") == []


@pytest.mark.parametrize("registered_anew", [False, True])
async def test_a_job_of_an_erased_tenant_queues_nothing_and_its_end_is_refused(
    work: Work, registered_anew: bool
) -> None:
    refused: list[TenantErased] = []
    erased, began = asyncio.Event(), asyncio.Event()

    async def late(ctx: dict[str, Any]) -> str:
        began.set()
        await erased.wait()
        try:
            await ctx["redis"].enqueue_job(late)
        except TenantErased as exc:
            refused.append(exc)
        return "too late"

    async with work.running(late, lease=60):
        await work.enqueue(late, _tenant="acme")
        await began.wait()
        await work.queue.erase("acme")
        if registered_anew:
            await work.queue.set_policy("acme", JobPolicy())
        erased.set()
    assert [one.tenant for one in refused] == ["acme"]
    left = [] if not registered_anew else [work.redis.names.of("tenant", "acme")]
    assert await traces(work, "acme") == left
