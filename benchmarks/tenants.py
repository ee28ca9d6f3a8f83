"""Tenants registered: the rows of a file, by `partywall tenants import` and by so many PUTs."""

import asyncio
import os
import sys
import time
from pathlib import Path

from benchmarks import setup
from benchmarks.load import drive, post
from benchmarks.report import Row

TENANTS = 10_000
PUTS = 2000
CONNECTIONS = 32
WANTED = 1000
"""Tenants a second."""


async def run(stores: setup.Stores) -> list[Row]:
    """New tenants with a name and a domain each; then the same file once more."""
    file = stores.directory / "tenants.csv"
    lines = (f"i{n},free,Tenant {n},i{n}.example" for n in range(TENANTS))
    file.write_text("\n".join(["tenant,tier,name,domains", *lines, ""]))
    with setup.sidecar(stores) as url:
        puts = await drive(
            url,
            [_put(number) for number in range(PUTS)],
            connections=CONNECTIONS,
            statuses=(201,),
        )
        first = await _imported(url, file)
        again = await _imported(url, file)
    what = f"new tenants/s, a file of {TENANTS:,}, start to end of `partywall tenants import`"
    return [
        Row(what, first, WANTED, f"{WANTED:,} a second", first / WANTED, ">= 1"),
        Row(what, first, puts.rate, f"a PUT each, {CONNECTIONS} connections", first / puts.rate),
        Row("the same file once more, tenants/s", again, first, "the first time", again / first),
    ]


async def _imported(url: str, file: Path) -> float:
    """Tenants a second of the whole command, which starts and reads its file in that time."""
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "partywall_service", "tenants", "import", str(file)),
        env={**os.environ, "PARTYWALL_SIDECAR_URL": url, "PARTYWALL_TOKEN": setup.TOKEN},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode or b"failed 0" not in said:
        raise RuntimeError(f"the import ended with {process.returncode}: {said.decode()}")
    return TENANTS / (time.perf_counter() - begin)


def _put(number: int) -> bytes:
    body = b'{"tier":"free","name":"Tenant %d","domains":["p%d.example"]}' % (number, number)
    return post(f"/v1/tenants/p{number}", body, setup.TOKEN).replace(b"POST", b"PUT", 1)
