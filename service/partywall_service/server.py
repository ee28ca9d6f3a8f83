"""`partywall serve`: everything a sidecar needs, from its policy to its port, and down again."""

import asyncio
import errno
import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from partywall_service import admin_token
from partywall_service.admin_token import keep_admin_token
from partywall_service.app import create_app, create_app_from_env
from partywall_service.embedded import EmbeddedError, EmbeddedServers
from partywall_service.engine.connect import RedisUrlError, connect
from partywall_service.jobs.connect import NO_CLUSTER, can_queue
from partywall_service.ledger.engine import create_ledger_engine
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.migrations import NOT_MIGRATED, database_at_head, upgrade
from partywall_service.listening import CannotListen, Listener, listening, taken
from partywall_service.logs import configure_logging
from partywall_service.maintenance.process import WorkerProcess
from partywall_service.policy.loader import PolicyError, load_policy
from partywall_service.settings import Settings

log = structlog.get_logger()

DRAIN_SECONDS = 5
"""How long requests under way may take once the sidecar is told to stop."""

KEEP_ALIVE_SECONDS = 130
"""How long an idle connection is kept: longer than clients and gateways keep theirs (uvicorn's 5 s
is what httpx has too; nginx 60 s, Caddy 120 s), so that they close it, and no request meets a
connection that is being closed under it."""

WORKER_HANG_SECONDS = 10
"""A worker process silent for this long is replaced; importing everything may take some of it."""

_METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client looks for the directory that worker processes share."""


class ServeError(Exception):
    """The sidecar cannot run; the message is what to tell the person who started it."""


def serve(settings: Settings, *, workers: int = 1, with_worker: bool = False) -> None:
    """Run a sidecar until SIGTERM or SIGINT; then finish its requests and stop what it started.

    Whatever has no URL in the settings is embedded. Must be called from the main thread.

    Args:
        settings: from the environment and the command line.
        workers: processes that answer; 1 answers in this process.
        with_worker: whether maintenance jobs run beside it, in a process of their own.

    Raises:
        ServeError: it cannot start: the policy, the port, the data directory or a store.
    """
    configure_logging()
    with _StopSignals() as signals, ExitStack() as stack:
        _check(settings)
        if with_worker:
            _check_queue(settings)
        try:
            listener = stack.enter_context(listening(settings.host, settings.port))
        except CannotListen as exc:
            raise ServeError(str(exc)) from exc
        token = _admin_token(settings)
        servers = _embedded(settings)
        if servers is not None:
            with _explained(settings):
                stack.enter_context(servers)
        # Whoever presses Ctrl-C once more while we stop must not interrupt the stopping.
        stack.callback(signals.ignore)
        complete = settings.model_copy(
            update={
                "redis_url": settings.redis_url or (servers and servers.redis_url),
                "database_url": settings.database_url or (servers and servers.database_url),
                "admin_token": token,
            }
        )
        _migrate_or_check(complete, embedded=settings.database_url is None)
        if with_worker:
            stack.enter_context(WorkerProcess(os.environ | _environment(complete)))
            stack.callback(signals.ignore)  # before the worker is stopped, which comes first
        _run(complete, listener.socket, workers, _banner(settings, listener))


def create_worker_app() -> Callable[..., object]:
    """What each process of `serve --workers` runs; its settings come from the environment."""
    configure_logging()
    # A terminal's Ctrl-C goes to every process; the parent hears it and tells us by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            # A worker that outlives a killed parent would keep its port.
            parent.join()
            shutil.rmtree(os.environ[_METRICS_DIR], ignore_errors=True)  # it no longer can
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=follow, name="follow-parent", daemon=True).start()
    return create_app_from_env()


def _check(settings: Settings) -> None:
    """Refuse what can be refused before anything is started."""
    try:
        load_policy(settings.config)
        if settings.redis_url is not None:
            connect(settings.redis_url)
        if settings.jobs_redis_url is not None:
            _check_jobs_url(settings.jobs_redis_url)
        if settings.database_url is not None:
            create_ledger_engine(settings.database_url)
    except (PolicyError, RedisUrlError) as exc:
        raise ServeError(str(exc)) from exc
    except ValueError as exc:
        raise ServeError(f"PARTYWALL_DATABASE_URL: {exc}") from exc


def _check_jobs_url(url: str) -> None:
    try:
        connect(url)
    except RedisUrlError as exc:
        raise ServeError(f"PARTYWALL_JOBS_REDIS_URL: {exc}") from exc


def _check_queue(settings: Settings) -> None:
    url = settings.jobs_redis_url or settings.redis_url
    if url is not None and not can_queue(url):
        raise ServeError(f"no worker can run: {NO_CLUSTER}")


def _embedded(settings: Settings) -> EmbeddedServers | None:
    valkey, postgres = settings.redis_url is None, settings.database_url is None
    if not valkey and not postgres:
        return None
    return EmbeddedServers(settings.data_dir, valkey=valkey, postgres=postgres)


def _admin_token(settings: Settings) -> str:
    if settings.admin_token is not None:
        return settings.admin_token
    with _explained(settings):
        return keep_admin_token(settings.data_dir)


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (EmbeddedError, ValueError) as exc:
        raise ServeError(str(exc)) from exc
    except OSError as exc:
        raise ServeError(
            f"the data directory {settings.data_dir} cannot be used: {exc.strerror or exc}; "
            "set PARTYWALL_DATA_DIR to one that can be written to"
        ) from exc


def _migrate_or_check(settings: Settings, *, embedded: bool) -> None:
    url = settings.database_url
    if url is None:
        raise ValueError("database_url is needed")
    try:
        if embedded:
            upgrade(url)
        elif not asyncio.run(database_at_head(url)):
            raise ServeError(NOT_MIGRATED)
    except LedgerUnavailable as exc:
        raise ServeError(str(exc)) from exc


def _run(
    settings: Settings, listener: socket.socket, workers: int, announce: Callable[[], None]
) -> None:
    try:
        if workers == 1:
            _Server(_config(create_app(settings)), announce).run([listener])
            return
        with _worker_environment(settings):
            factory = f"{__name__}:{create_worker_app.__name__}"
            _Workers(_config(factory, workers), listener, announce).run()
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:  # two starts bound it, and the other listened first
            raise ServeError(str(taken(settings.host, settings.port))) from exc
        raise
    except SystemExit as exc:
        if exc.code == STARTUP_FAILURE:
            raise ServeError("the sidecar did not start; its log above says why") from exc
        raise


def _config(app: Callable[..., Any] | str, workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        lifespan="on",
        ws="none",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=WORKER_HANG_SECONDS,
    )


class _Server(uvicorn.Server):
    """Says so when it listens."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: there a second Ctrl-C skips the app's shutdown, and the signal is
        # raised anew at the end. Draining has its time limit already.
        self.should_exit = True


class _Workers(Multiprocess):
    """Says so when every process listens; passes on that one cannot start."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, announce: Callable[[], None]
    ) -> None:
        super().__init__(config, sockets=[listener])
        self._announce: Callable[[], None] | None = announce

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        if self._announce and all(worker.is_ready(timeout=1) for worker in self.processes):
            self._announce()
            self._announce = None

    def run(self) -> None:
        super().run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in self.processes):
            sys.exit(STARTUP_FAILURE)


@contextmanager
def _worker_environment(settings: Settings) -> Iterator[None]:
    """Put the settings where worker processes find them, and give them a place for metrics."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="partywall-metrics-") as metrics:
        os.environ.update(_environment(settings) | {_METRICS_DIR: metrics})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _environment(settings: Settings) -> dict[str, str]:
    """What a child process reads the same settings from."""
    prefix = settings.model_config.get("env_prefix", "")
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return {
        f"{prefix}{name}".upper(): ",".join(it) if isinstance(it, tuple) else str(it)
        for name, it in values.items()
        if it is not None
    }


class _StopSignals:
    """SIGTERM, SIGINT and SIGHUP end the block, once; that is a wished-for end, not an error."""

    def __init__(self) -> None:
        self._ignored = False
        self._before: dict[signal.Signals, object] = {}

    def ignore(self) -> None:
        """Let no further signal interrupt."""
        self._ignored = True

    def __enter__(self) -> "_StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._end)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # ignored under nohup
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal() gave us
        return kind is not None and issubclass(kind, KeyboardInterrupt)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        # uvicorn knows SIGTERM, and drains.
        os.kill(os.getpid(), signal.SIGTERM)


def _banner(settings: Settings, listener: Listener) -> Callable[[], None]:
    if settings.admin_token is None:
        path = settings.data_dir / admin_token.FILE
        where, token = f"in {path}", f"$(cat {shlex.quote(str(path))})"
    else:
        where, token = "in PARTYWALL_ADMIN_TOKEN", "$PARTYWALL_ADMIN_TOKEN"
    url, base = listener.url, listener.base
    documented = f" (API documentation: {url}/docs)" if url == base else ""
    text = f"""\
Partywall is up at {url}{documented}
The admin token is {where}. Try:
  curl -s {base}/v1/check -H "Authorization: Bearer {token}" \
-H 'Content-Type: application/json' -d '{{"tenant": "acme"}}'
"""

    def announce() -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return announce
