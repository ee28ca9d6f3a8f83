"""A line on which answers are lost."""

import httpx


class Losing(httpx.AsyncBaseTransport):
    """Loses the first answer to each request, after it was made."""

    def __init__(self, to: httpx.AsyncBaseTransport) -> None:
        self.to = to
        self.keys: list[str | None] = []
        self.lost: set[tuple[str, str]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.to.handle_async_request(request)
        name = (request.method, request.url.path)
        self.keys.append(request.headers.get("idempotency-key"))
        if name not in self.lost:
            self.lost.add(name)
            raise httpx.ReadError("lost")
        return answer
