"""Servers for the measurements: the one measured has the first core, all else the last."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

import httpx

from partywall_service.embedded import EmbeddedServers
from partywall_service.ledger.migrations import upgrade

TOKEN = "benchmark-token"
PLENTY = "10000000/minute"
"""A rate that nothing here reaches."""

_POLICY = """
default_tier = "free"
[tiers.free.limits]
requests = "{rate}"
[tiers.free.quotas]
users = 1000000000
slots = 1000000000
[resources.slots]
durable = false
"""

CORES = sorted(os.sched_getaffinity(0))
MEASURED = {CORES[0]}
BESIDE = {CORES[-1]}


@dataclass(frozen=True)
class Stores:
    """The stores every measurement shares."""

    directory: Path
    redis_url: str
    database_url: str


@contextlib.contextmanager
def stores() -> Iterator[Stores]:
    """A Valkey and a PostgreSQL of this run, off the measured core."""
    os.sched_setaffinity(0, BESIDE)
    with tempfile.TemporaryDirectory(prefix="pw-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with EmbeddedServers(directory / "data", valkey=True, postgres=True) as servers:
            assert servers.redis_url is not None
            assert servers.database_url is not None
            upgrade(servers.database_url)
            yield Stores(directory, servers.redis_url, servers.database_url)


@contextlib.contextmanager
def sidecar(
    stores: Stores,
    *,
    rate: str = PLENTY,
    core: Collection[int] = MEASURED,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A sidecar of one process; its URL."""
    config = stores.directory / f"quotas-{rate.replace('/', '-')}.toml"
    config.write_text(_POLICY.format(rate=rate))
    with _process(
        lambda port: ["-m", "partywall_service", "serve", "--port", str(port)],
        {
            "PARTYWALL_CONFIG": str(config),
            "PARTYWALL_REDIS_URL": stores.redis_url,
            "PARTYWALL_DATABASE_URL": stores.database_url,
            "PARTYWALL_ADMIN_TOKEN": TOKEN,
            "PARTYWALL_REDIS_TIMEOUT_MS": os.environ.get("BENCH_DEADLINE_MS", "5000"),
            "PARTYWALL_DATA_DIR": str(stores.directory / "sidecar"),
            **(environment or {}),
        },
        ready="/readyz",
        core=core,
    ) as url:
        yield url


@contextlib.contextmanager
def app(
    name: str,
    stores: Stores,
    *,
    factory: bool = False,
    module: str = "benchmarks.apps",
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """One app of a module under uvicorn, as the sidecar runs it; its URL."""
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--no-server-header"]
    options += ["--log-level", "warning", *(["--factory"] if factory else [])]
    redis_url = stores.redis_url.replace("unix://", "redis+unix://")
    with _process(
        lambda port: ["-m", "uvicorn", f"{module}:{name}", "--port", str(port), *options],
        {"BENCH_REDIS_URL": redis_url, **(environment or {})},
        ready="/",
    ) as url:
        yield url


@contextlib.contextmanager
def _process(
    command: Callable[[int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    ready: str,
    core: Collection[int] = MEASURED,
) -> Iterator[str]:
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *command(port)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        os.sched_setaffinity(process.pid, core)
        url = f"http://127.0.0.1:{port}"
        _until_ready(process, url + ready)
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), core)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            if httpx.get(url, timeout=5).status_code < 500:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not answer in 30 s")
