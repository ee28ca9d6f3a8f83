"""Plays a noisy and a quiet merchant side by side, and prints how each was served.

    python traffic.py [URL]

Both have the same plan: 60 requests a minute. One takes its time, the other does not.
"""

import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
from login import token_of
from rich.console import Console
from rich.table import Table


@dataclass
class Merchant:
    """One merchant's program, and how it was served.

    Attributes:
        name: the merchant's id.
        requests: how many it sends.
        together: how many of them at once.
        pause: seconds between them.
        statuses: how many answers had which status.
        seconds: what each answer took.
    """

    name: str
    requests: int
    together: int
    pause: float
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def play(self, url: str) -> None:
        """Sends the requests."""
        headers = {"Authorization": f"Bearer {token_of(self.name)}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            for _ in range(self.requests // self.together):
                await asyncio.gather(*(self._ask(client) for _ in range(self.together)))
                await asyncio.sleep(self.pause)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        began = time.perf_counter()
        answer = await client.get("/orders")
        self.seconds.append(time.perf_counter() - began)
        self.statuses[answer.status_code] += 1


async def main(url: str) -> None:
    """Plays both, and prints the table."""
    merchants = [
        Merchant("noisy", requests=300, together=10, pause=0.1),
        Merchant("quiet", requests=30, together=1, pause=0.1),
    ]
    await asyncio.gather(*(merchant.play(url) for merchant in merchants))
    table = Table("merchant", "sent", "served", "denied (429)", "other", "median ms")
    for merchant in merchants:
        served, denied = merchant.statuses[200], merchant.statuses[429]
        other = merchant.statuses.total() - served - denied
        median = statistics.median(merchant.seconds) * 1000
        counts = (merchant.statuses.total(), served, denied, other)
        table.add_row(merchant.name, *map(str, counts), f"{median:.1f}")
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
