"""`partywall worker`."""

import os
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.imports import uncollected
from partywall_service.cli.options import example

if TYPE_CHECKING:
    from partywall_service.settings import Settings

EPILOG = example(
    "partywall worker",
    "partywall worker myapp.jobs.Settings",
    "partywall worker myapp.jobs.Settings --queue dedicated --queue default",
)

ANSWER_SECONDS = 5
"""How long an embedded server has to answer."""


def worker(
    settings: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE.SETTINGS",
            help="A class derived from FairWorkerSettings, or one of arq's; left out, Partywall's "
            "own maintenance jobs.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A queue to serve, instead of those that the class names; repeat it for several, "
            "the first first.",
        ),
    ] = None,
    burst: Annotated[
        bool, typer.Option("--burst", help="End when there is nothing left to run.")
    ] = False,
    follow_stdin: Annotated[
        bool, typer.Option("--follow-stdin", hidden=True, help="End when stdin does.")
    ] = False,
) -> None:
    """Run jobs, each tenant's in its turn, until Ctrl-C; jobs that run may then end.

    Redis is PARTYWALL_JOBS_REDIS_URL, PARTYWALL_REDIS_URL, or that of `partywall serve` in the
    same PARTYWALL_DATA_DIR. The current directory is looked in first for the module.
    """
    from partywall_service.cli.serve import read_settings
    from partywall_service.logs import configure_logging
    from partywall_workers.loading import CannotRun
    from partywall_workers.logs import JobContextFilter

    configure_logging(JobContextFilter())
    if follow_stdin:
        threading.Thread(target=_follow_stdin, name="follow-stdin", daemon=True).start()
    told = read_settings({})
    options: dict[str, Any] = {"burst": True} if burst else {}
    if queue:
        options["lanes"] = tuple(queue)
    try:
        if settings is None:
            _maintain(told, options)
        else:
            _run(settings, told, options)
    except CannotRun as exc:
        raise CliError(str(exc)) from exc


def _run(name: str, told: "Settings", options: dict[str, Any]) -> None:
    from partywall_workers import command
    from partywall_workers.keys import queue_name
    from partywall_workers.loading import load_settings

    settings = load_settings(name)
    if not _names(settings, *command.OWN_REDIS):
        options["redis_url"] = _redis_url(told)
    if not _names(settings, "redis_pool", "queue_name", "key_prefix"):
        options["queue_name"] = queue_name(told.key_prefix)
    command.run(lambda: command.worker_of(settings, **options))


def _names(settings: type, *attributes: str) -> bool:
    return any(getattr(settings, one, None) is not None for one in attributes)


def _maintain(told: "Settings", options: dict[str, Any]) -> None:
    import logging

    with uncollected():
        from partywall_service.maintenance.worker import maintenance_worker
    from partywall_workers import command
    from partywall_workers.keys import queue_name

    options["redis_url"] = _redis_url(told)
    options["queue_name"] = queue_name(told.key_prefix)
    limits_url = _limits_url(told)
    database_url = _database_url(told)
    # Each job says that it starts and ends, and there is one a second.
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    command.run(lambda: maintenance_worker(told, database_url, limits_url, **options))


def _redis_url(told: "Settings") -> str:
    """Where jobs are queued.

    Raises:
        CliError: it can be no queue's, or is an embedded one that does not run.
    """
    from partywall_service.jobs.connect import NO_CLUSTER, can_queue

    url = told.jobs_redis_url or told.redis_url
    if url is None:
        return _embedded_redis_url(told)
    if not can_queue(url):
        raise CliError(NO_CLUSTER)
    return url


def _limits_url(told: "Settings") -> str:
    """Where decisions are counted.

    Raises:
        CliError: it cannot be read, or is an embedded one that does not run.
    """
    from partywall_service.engine.connect import RedisUrlError, connect

    url = told.redis_url or _embedded_redis_url(told)
    try:
        connect(url)
    except RedisUrlError as exc:
        raise CliError(f"PARTYWALL_REDIS_URL: {exc}") from exc
    return url


def _embedded_redis_url(told: "Settings") -> str:
    import redis

    from partywall_service.embedded import ValkeyServer

    url = ValkeyServer(told.data_dir / "valkey").url
    with redis.Redis.from_url(
        url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    ) as client:
        try:
            client.ping()
        except redis.RedisError as exc:
            raise _not_served(told, "Valkey", "PARTYWALL_REDIS_URL") from exc
    return url


def _database_url(told: "Settings") -> str:
    """Where the ledger is, which answers and is migrated.

    Raises:
        CliError: it is not.
    """
    import asyncio

    from partywall_service.embedded import PostgresServer
    from partywall_service.ledger.errors import LedgerUnavailable
    from partywall_service.ledger.migrations import NOT_MIGRATED, database_at_head

    url = told.database_url or PostgresServer(told.data_dir / "postgres").url
    try:
        if not asyncio.run(database_at_head(url)):
            raise CliError(NOT_MIGRATED)
    except LedgerUnavailable as exc:
        if told.database_url is None:
            raise _not_served(told, "PostgreSQL", "PARTYWALL_DATABASE_URL") from exc
        raise CliError(str(exc)) from exc
    except ValueError as exc:
        raise CliError(f"PARTYWALL_DATABASE_URL: {exc}") from exc
    return url


def _not_served(told: "Settings", server: str, variable: str) -> CliError:
    return CliError(
        f"no {server} answers in the data directory {told.data_dir}: start `partywall serve` "
        f"first, or set {variable} to a server of yours"
    )


def _follow_stdin() -> None:
    """Ends this process when whoever started it does, however that ends."""
    while os.read(0, 4096):  # not by sys.stdin, whose lock this thread would hold to the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
