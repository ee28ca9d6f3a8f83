"""The servers all tests of one run share, and the directory everything of the run is in.

The controller (pytest itself, or xdist's) owns the directory by a lock that the kernel frees
however it ends; the next run sweeps what a killed one left, processes first.
"""

import fcntl
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from partywall_service.embedded import DataDirBusy, PostgresServer, ValkeyServer
from partywall_service.embedded.left_running import clear_left_running
from partywall_service.embedded.lock import DataDirLock

RUN_DIR = "PARTYWALL_TEST_RUN_DIR"
"""Environment variable: tells xdist's workers where the run's directory is."""

_PREFIX = "pw-tests-"
_TEMPLATE = "migrated"


class TestRun:
    """One run's directory and shared servers."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.valkey = ValkeyServer(directory / "valkey")
        self.postgres = PostgresServer(
            directory / "postgres",
            # The run's data is worthless after it; tests of durability have a server of their own.
            settings={"fsync": "off", "full_page_writes": "off", "max_connections": "400"},
        )

    def fresh_dir(self, name: str) -> Path:
        """A new directory with a short path, so that sockets fit in it."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """One worker at a time."""
        with (self.directory / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def create_database(self) -> str:
        """A new database with every migration in it; its URL."""
        name = f"t_{uuid.uuid4().hex}"
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            with self.locked("template"):
                query = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(query, [_TEMPLATE]).fetchone() is None:
                    self._make_template(connection)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(_TEMPLATE)
                )
            )
        return self.postgres.url_of(name)

    def _make_template(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        from partywall_service.ledger.migrations import upgrade

        draft = f"{_TEMPLATE}_{uuid.uuid4().hex}"
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(draft)))
        upgrade(self.postgres.url_of(draft))
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                sql.Identifier(draft), sql.Identifier(_TEMPLATE)
            )
        )

    def drop_database(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(str(name)))
            )


@contextmanager
def controlled_run() -> Iterator[TestRun]:
    """Start the shared servers; stop them and remove everything at the end."""
    _sweep()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = DataDirLock(directory)
    lock.acquire()
    run = TestRun(directory)
    os.environ[RUN_DIR] = str(directory)
    try:
        run.valkey.start()
        run.postgres.start()
        yield run
    finally:
        del os.environ[RUN_DIR]
        run.valkey.stop()
        run.postgres.stop()
        _clear(directory)
        lock.release()


def _sweep() -> None:
    """Remove what runs left that were killed: nobody holds their lock any more."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = DataDirLock(directory)
        try:
            if not (directory / "lock").exists():  # just being made, by another run
                continue
            lock.acquire()
        except (DataDirBusy, OSError):
            continue
        _clear(directory)
        lock.release()


def _clear(directory: Path) -> None:
    for home in directory.rglob("valkey*/"):
        clear_left_running("valkey-server", home, signal.SIGTERM, 10)
    for home in directory.rglob("postgres/"):
        clear_left_running("postgres", home, signal.SIGINT, 10)
    shutil.rmtree(directory, ignore_errors=True)
