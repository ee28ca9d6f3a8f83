"""The API in a process of its own, logging as a sidecar does: `python -m tests.support.logged_api`.

Logging is configured once in a process, and structlog's loggers keep it.
"""

import asyncio
import logging
from types import SimpleNamespace

import httpx
import structlog
from fastapi import APIRouter, Request

from partywall_service.api import create_api
from partywall_service.api.auth import Principal
from partywall_service.api.problems import Problem
from partywall_service.ledger.token_text import TokenText
from partywall_service.logs import configure_logging, hide

ADMIN_TOKEN = 'the-"admin"-token'
TOKEN = TokenText("0123456789ab", "s3cret-" * 6 + "x")

log = structlog.get_logger()
library = logging.getLogger("some.library")
router = APIRouter()
ended = asyncio.Event()
lingering: list[asyncio.Task[None]] = []


@router.get("/v1/tenants/{tenant}/lines")
async def lines(tenant: str) -> None:
    """Lines of ours, of a library's, of a thread's, and of a task that outlives the request."""
    log.info("ours", path="its own")
    library.warning("a %s", "library's", extra={"more": 1})
    await asyncio.to_thread(library.warning, "a thread's")

    async def linger() -> None:
        library.warning("a task's, meanwhile")
        await ended.wait()
        library.warning("a task's, afterwards")

    lingering.append(asyncio.create_task(linger()))
    await asyncio.sleep(0)


@router.get("/v1/mine")
async def mine(request: Request) -> None:
    """As a tenant's own token is told of."""
    request.state.principal = Principal("tenant", "globex", "globex's token")
    library.warning("its own")
    raise Problem("unavailable", "not now")


@router.get("/v1/broken")
async def broken() -> None:
    """A defect, with a token in its message."""
    raise RuntimeError(f"what is {TOKEN}")


@router.post("/v1/tokens/{token}")
async def revoke(token: str, request: Request) -> None:
    """A change, by somebody known."""
    request.state.principal = Principal("admin", None, "admin")


async def main() -> None:
    """Asks for each of them, with the name of the path as the request's id."""
    configure_logging()
    hide(ADMIN_TOKEN)
    api = create_api()
    api.state.parts = SimpleNamespace()
    api.include_router(router)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://sidecar"
    ) as client:

        async def ask(method: str, path: str, request_id: str) -> None:
            await client.request(method, path, headers={"X-Request-ID": request_id})

        await ask("GET", "/v1/tenants/acme/lines?token=in-the-query", "lines")
        ended.set()
        await asyncio.gather(*lingering)
        await ask("GET", "/v1/mine", "mine")
        await ask("GET", "/v1/broken", "broken")
        await ask("POST", f"/v1/tokens/{TOKEN}", "revoke")
        await ask("POST", f"/v1/tokens/{ADMIN_TOKEN}", "revoke-admin")
        await ask("POST", f"/v1/tenants/{TOKEN}", "in-a-path")
        await ask("POST", "/v1/nothing", str(TOKEN))


if __name__ == "__main__":
    asyncio.run(main())
