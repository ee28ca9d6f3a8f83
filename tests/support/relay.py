"""A network between an SDK and its sidecar, with the faults that networks have."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.support.http1 import BROKEN, Connection, message


class Fate(NamedTuple):
    """What happens to one request and its answer.

    Attributes:
        before: seconds until the sidecar gets the request.
        after: seconds until the SDK gets the answer.
        twice: the sidecar gets it twice; the SDK gets the later answer.
        lost: the answer never comes: the connection breaks.
    """

    before: float = 0.0
    after: float = 0.0
    twice: bool = False
    lost: bool = False


@asynccontextmanager
async def relay(target: str, fate: Callable[[], Fate]) -> AsyncIterator[str]:
    """The URL of a relay to `target`, while the block lasts; `fate` is asked for each request."""
    talking: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            async with Connection(target) as upstream:
                while await _exchange(reader, writer, upstream, fate()):
                    pass
        except BROKEN:
            pass  # either side went away: so does the other
        except asyncio.CancelledError:
            pass  # the relay ends, and asyncio's streams would log it
        finally:
            talking.discard(task)
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        ending = list(talking)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending)
        await server.wait_closed()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream: Connection,
    fate: Fate,
) -> bool:
    request = b"".join(await message(reader))
    await asyncio.sleep(fate.before)
    answer = await upstream.raw(request)
    if fate.twice:
        answer = await upstream.raw(request)
    if fate.lost:
        return False
    await asyncio.sleep(fate.after)
    writer.write(b"".join(answer))
    return True
