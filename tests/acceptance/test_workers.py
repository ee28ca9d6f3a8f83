"""`serve --workers 2`: several processes behind one port behave as one."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil
import pytest

from tests.acceptance.asking import check, fresh_tenant, put_tenant, until
from tests.support.processes import eventually
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar

QUOTAS = """
[tiers.free.limits]
requests = "5/hour"
plenty = "1000000/hour"
"""

CONNECTIONS = 24
"""Enough that no process gets none of them."""


@pytest.fixture(scope="module")
def one(test_run: TestRun) -> Iterator[Sidecar]:
    """For all of them, since to start its processes costs ten seconds; the last test stops it."""
    with shared_sidecars(test_run, QUOTAS, arguments=["--workers", "2"]) as (one,):
        yield one


@pytest.fixture
async def callers(one: Sidecar) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of one connection each, which stays with the process that took it."""
    clients = [one.client() for _ in range(CONNECTIONS)]
    for client in clients:
        assert (await client.get("/healthz")).status_code == 200
    yield clients
    for client in clients:
        await client.aclose()


def workers_with_connections(one: Sidecar) -> set[int]:
    """The processes that hold a client's connection."""
    port = httpx.URL(one.url).port
    found = set()
    for process in psutil.Process(one.process.pid).children(recursive=True):
        # One that was killed and not yet buried has none, and is nobody's to look into.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port:
                    found.add(process.pid)
    return found


async def both_take_part(one: Sidecar, callers: list[httpx.AsyncClient]) -> None:
    """Connections until each process has some: the kernel deals them out as it likes."""

    async def taken() -> bool:
        if len(workers_with_connections(one)) == 2:
            return True
        more = [one.client() for _ in range(CONNECTIONS)]
        callers.extend(more)
        await asyncio.gather(*(client.get("/healthz") for client in more))
        return False

    await until(taken)


async def test_they_are_exact_together(one: Sidecar, callers: list[httpx.AsyncClient]) -> None:
    await both_take_part(one, callers)
    acme = fresh_tenant()
    await put_tenant(callers[0], acme)
    answers = await asyncio.gather(*(check(client, acme) for client in callers * 8))
    assert sum(decision["allowed"] for decision in answers) == 5
    assert not any(decision["degraded"] for decision in answers)


async def test_metrics_are_of_all_of_them(one: Sidecar, callers: list[httpx.AsyncClient]) -> None:
    await both_take_part(one, callers)
    acme = fresh_tenant()
    await put_tenant(callers[0], acme)
    for client in callers:
        assert (await check(client, acme, limit="plenty"))["allowed"] is True
    # Whoever answers counts for all.
    for client in callers:
        text = (await client.get("/metrics")).text
        found = re.search(
            r'partywall_decisions_total\{limit="plenty",outcome="admitted",tier="free"\} (\S+)',
            text,
        )
        assert found is not None
        assert float(found[1]) == len(callers)


async def test_changes_reach_all_of_them(one: Sidecar, callers: list[httpx.AsyncClient]) -> None:
    await both_take_part(one, callers)
    acme = fresh_tenant()
    await put_tenant(callers[0], acme)

    async def reasons() -> set[str | None]:
        asked = (check(client, acme, limit="plenty") for client in callers)
        return {decision["reason"] for decision in await asyncio.gather(*asked)}

    assert await reasons() == {None}
    await put_tenant(callers[0], acme, status="suspended")

    async def felt() -> bool:
        return await reasons() == {"tenant-suspended"}

    await until(felt)
    await put_tenant(callers[0], acme, status="active")

    async def quotas() -> set[int]:
        asked = (check(client, acme, dry_run=True) for client in callers)
        return {it["windows"][0]["quota"] for it in await asyncio.gather(*asked) if it["windows"]}

    for quota in (7, 5):
        one.quotas.write_text(QUOTAS.replace("5/hour", f"{quota}/hour"))

        async def reloaded(quota: int = quota) -> bool:
            return await quotas() == {quota}

        await until(reloaded)


async def test_a_killed_worker_is_replaced(one: Sidecar, callers: list[httpx.AsyncClient]) -> None:
    await both_take_part(one, callers)
    acme = fresh_tenant()
    await put_tenant(callers[0], acme)
    assert sum([(await check(client, acme))["allowed"] for client in callers]) == 5
    victim = psutil.Process(workers_with_connections(one).pop())
    victim.kill()

    async def whole() -> bool:
        async with one.client() as client:
            await client.get("/healthz")
        left = psutil.Process(one.process.pid).children(recursive=True)
        serving = [it for it in left if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
        return victim.pid not in {it.pid for it in serving} and len(serving) >= 2

    await until(whole, httpx.TransportError, psutil.NoSuchProcess, seconds=60)
    async with one.client() as client:
        assert (await check(client, acme))["allowed"] is False


async def test_told_to_stop_they_finish_what_is_under_way(
    one: Sidecar, callers: list[httpx.AsyncClient]
) -> None:
    await both_take_part(one, callers)
    acme = fresh_tenant()
    await put_tenant(callers[0], acme)
    url = httpx.URL(one.url)
    body = f'{{"tenant": "{acme}", "limit": "plenty"}}'.encode()
    head = (
        f"POST /v1/check HTTP/1.1\r\nHost: partywall\r\nAuthorization: Bearer {one.admin_token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    under_way = [await asyncio.open_connection(url.host, url.port) for _ in range(CONNECTIONS)]
    for _, writer in under_way:
        writer.write(head.encode() + body[:5])
        await writer.drain()
    for client in callers:  # by then each process has read the halves as well
        assert (await client.get("/healthz")).status_code == 200
    children = psutil.Process(one.process.pid).children(recursive=True)
    one.process.send_signal(signal.SIGTERM)
    answers = []
    for reader, writer in under_way:
        writer.write(body[5:])
        answers.append(await reader.read())
        writer.close()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), answers
    assert await asyncio.to_thread(one.process.wait, 30) == 0
    eventually(lambda: not any(child.is_running() for child in children))
    assert "Traceback" not in one.log
