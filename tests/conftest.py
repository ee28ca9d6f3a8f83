"""Fixtures for every test: real servers, shared by one run or private to one test.

| fixture | gives |
| --- | --- |
| `valkey_url`, `redis_client` | the run's Valkey; keep to `key_prefix` |
| `key_prefix` | a prefix of this test alone; then each key under it, but of jobs, must have a TTL |
| `jobs_queue` | a queue of this test alone on the run's Valkey, deleted afterwards |
| `database_url` | a database of this test alone, migrated |
| `postgres_server_url` | the run's PostgreSQL, its own empty database |
| `valkey_cluster` | three nodes, started at the first use |
| `own_valkey`, `own_postgres` | a server of this test alone, to freeze, kill and start again |
| `server_dir` | an empty directory with a path short enough for sockets |
| `sidecar` | starts `partywall serve` processes |

A server that cannot start fails the run: nothing here skips. Only a browser may be missing, and not
in CI (`tests.support.browser`).
"""

import contextlib
import os
import resource
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, settings

from partywall_service.embedded import EmbeddedError, PostgresServer, ValkeyServer
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.support.cluster import ValkeyCluster, running_cluster
from tests.support.run import RUN_DIR, TestRun, controlled_run
from tests.support.screenshots import SCREENSHOTS, taken_since
from tests.support.sidecar import ADMIN_TOKEN, QUOTAS, Sidecar
from tests.support.spread import ByFile

SOAK = os.environ.get("PARTYWALL_SOAK") == "1"
BEGAN = time.time()
FILES = 8192

_slow_is_fine = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "short", max_examples=50, deadline=None, suppress_health_check=_slow_is_fine
)
settings.register_profile(
    "soak", max_examples=2000, deadline=None, suppress_health_check=_slow_is_fine
)
settings.load_profile("soak" if SOAK else "short")

_run_stack = pytest.StashKey[contextlib.ExitStack]()


def pytest_configure() -> None:
    """Be alike wherever it runs.

    A shell's limit of open files is often 1024, and a thousand connections at once need more. What
    is started in the background ignores Ctrl-C, and so would all that the tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the run's servers in the controller, before xdist starts its workers."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    stack = session.config.stash[_run_stack] = contextlib.ExitStack()
    try:
        stack.enter_context(controlled_run())
    except EmbeddedError as exc:
        pytest.exit(f"the tests need real servers: {exc}", returncode=1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make soak` what is only run there."""
    if not SOAK:
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Keep together what shares a server."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop them, also after a Ctrl-C."""
    if stack := config.stash.get(_run_stack, None):
        stack.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where there are pictures of the dashboard, if this run took any."""
    if taken := taken_since(BEGAN):
        terminalreporter.write_line(f"{taken} screenshots of the dashboard: {SCREENSHOTS}")


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether this is the long run (`make soak`)."""
    return SOAK


@pytest.fixture(scope="session")
def test_run() -> TestRun:
    return TestRun(Path(os.environ[RUN_DIR]))


@pytest.fixture(scope="session")
def valkey_url(test_run: TestRun) -> str:
    return test_run.valkey.url


@pytest.fixture(scope="session")
def postgres_server_url(test_run: TestRun) -> str:
    return test_run.postgres.url


@pytest.fixture
def key_prefix(valkey_url: str) -> Iterator[str]:
    prefix = f"t{uuid.uuid4().hex[:16]}"
    yield prefix
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        keys = list(client.scan_iter(match=f"*{prefix}*", count=10_000))  # arq's begin with arq:
        jobs = f"{prefix}:jobs"  # they wait for as long as it takes
        forever = [key for key in keys if jobs not in key and client.ttl(key) == -1]
        if keys:
            client.delete(*keys)
    assert not forever, f"these keys never expire: {sorted(forever)[:10]}"


@pytest.fixture
async def redis_client(valkey_url: str) -> "AsyncIterator[redis.asyncio.Redis]":
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
async def jobs_queue(valkey_url: str) -> AsyncIterator[FairQueue]:
    name = f"t{uuid.uuid4().hex[:16]}:jobs"
    client = FairRedis.from_url(valkey_url, queue_name=name)
    yield FairQueue(client)
    keys = [key async for key in client.scan_iter(match=f"*{name}*", count=10_000)]
    if keys:
        await client.delete(*keys)
    await client.aclose(close_connection_pool=True)


@pytest.fixture
def database_url(test_run: TestRun) -> Iterator[str]:
    url = test_run.create_database()
    yield url
    test_run.drop_database(url)


@pytest.fixture(scope="session")
def valkey_cluster(test_run: TestRun) -> Iterator[ValkeyCluster]:
    with running_cluster(test_run.fresh_dir("cluster")) as cluster:
        yield cluster


@pytest.fixture
def server_dir(test_run: TestRun) -> Path:
    return test_run.fresh_dir("own")


@pytest.fixture
def own_valkey(server_dir: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(server_dir / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_postgres(server_dir: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(server_dir / "postgres")
    server.start()
    yield server
    server.stop()


class SidecarFactory(Protocol):
    """`sidecar(...)`: start one and wait until it is ready."""

    def __call__(
        self,
        *,
        quotas: str = QUOTAS,
        env: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] = (),
        embedded: bool = False,
        start: bool = True,
    ) -> Sidecar: ...


@pytest.fixture
def sidecar(
    test_run: TestRun, valkey_url: str, key_prefix: str, database_url: str
) -> Iterator[SidecarFactory]:
    """Start `partywall serve`, as many as wanted, stopped at the end; their logs show on failure.

    Without `embedded` it is given the run's Valkey under this test's `key_prefix`, and this test's
    `database_url`: two sidecars of one test share both. `env` wins; None takes a variable away.
    """
    made: list[Sidecar] = []

    def make(
        *,
        quotas: str = QUOTAS,
        env: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] = (),
        embedded: bool = False,
        start: bool = True,
    ) -> Sidecar:
        directory = test_run.fresh_dir("sidecar")
        (directory / "quotas.toml").write_text(quotas)
        wanted: dict[str, str | None] = {
            "PARTYWALL_ADMIN_TOKEN": ADMIN_TOKEN,
            "PARTYWALL_DATA_DIR": str(directory / "data"),
            # A busy machine must not look like an outage of Redis; tests of outages set their own.
            "PARTYWALL_REDIS_TIMEOUT_MS": "5000",
        }
        if not embedded:
            wanted["PARTYWALL_REDIS_URL"] = valkey_url
            wanted["PARTYWALL_KEY_PREFIX"] = key_prefix
            wanted["PARTYWALL_DATABASE_URL"] = database_url
        wanted.update(env or {})
        given = {name: value for name, value in wanted.items() if value is not None}
        one = Sidecar(directory, given, arguments)
        made.append(one)
        if start:
            one.start()
        return one

    yield make
    with contextlib.ExitStack() as stack:
        for one in made:
            stack.callback(one.close)
    for one in made:
        print(f"--- {one.url or one.directory} ---\n{one.log}")  # noqa: T201 - shown on failure
