"""The embedded servers: started, stopped, killed, left running, and nothing lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.exceptions import RedisError

from partywall_service.embedded import (
    DataDirBusy,
    EmbeddedServers,
    PostgresServer,
    ServerFailed,
    ValkeyServer,
)
from partywall_service.embedded.sockets import MAX_SOCKET_PATH, socket_dir
from tests.support.processes import eventually, server_processes, serving_in

HOLDER = """
import sys, time
from pathlib import Path
from partywall_service.embedded import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]))
servers.start()
print(servers.valkey.pid, servers.postgres.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def data_dir(server_dir: Path) -> Path:
    return server_dir / "data"


def write(servers: EmbeddedServers, value: str) -> None:
    assert servers.redis_url
    assert servers.database_url
    with Redis.from_url(servers.redis_url) as client:
        client.set("kept", value)
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def read(servers: EmbeddedServers) -> tuple[str, list[str]]:
    assert servers.redis_url
    assert servers.database_url
    with Redis.from_url(servers.redis_url, decode_responses=True) as client:
        cached = client.get("kept")
    with psycopg.connect(servers.database_url) as connection:
        rows = connection.execute("SELECT value FROM kept").fetchall()
    return cached, [row[0] for row in rows]


def test_a_restart_keeps_what_was_written(data_dir: Path) -> None:
    with EmbeddedServers(data_dir) as servers:
        write(servers, "first")
        first_urls = servers.redis_url, servers.database_url
    assert serving_in(data_dir) == {}
    with EmbeddedServers(data_dir) as servers:
        assert read(servers) == ("first", ["first"])
        assert (servers.redis_url, servers.database_url) == first_urls


def test_only_the_wanted_server_is_started(data_dir: Path) -> None:
    with EmbeddedServers(data_dir, postgres=False) as servers:
        assert serving_in(data_dir) == {"valkey-server": 1}
        assert servers.database_url is None


def test_stopping_twice_and_stopping_what_never_started_is_harmless(data_dir: Path) -> None:
    servers = EmbeddedServers(data_dir, postgres=False)
    servers.stop()
    servers.start()
    servers.stop()
    servers.stop()
    assert serving_in(data_dir) == {}


def test_the_servers_keep_to_their_promises_on_disk_and_network(data_dir: Path) -> None:
    with EmbeddedServers(data_dir) as servers:
        assert servers.redis_url
        assert servers.database_url
        with Redis.from_url(servers.redis_url, decode_responses=True) as client:
            config = client.config_get("*")
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "everysec"
        assert config["maxmemory-policy"] == "noeviction"
        assert config["port"] == "0"
        with psycopg.connect(servers.database_url) as connection:

            def shown(name: str) -> str:
                row = connection.execute(f"SHOW {name}").fetchone()
                assert row
                return row[0]

            assert shown("fsync") == "on"
            assert shown("synchronous_commit") == "on"
            assert shown("listen_addresses") == ""
            assert int(shown("max_connections")) >= 200
            assert shown("server_encoding") == "UTF8"
        assert servers.valkey
        assert servers.valkey.socket.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("which", ["valkey", "postgres"])
def test_a_killed_server_is_started_again_with_its_data(data_dir: Path, which: str) -> None:
    with EmbeddedServers(data_dir) as servers:
        write(servers, "before")
        victim = getattr(servers, which)
        pid = victim.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: victim.pid not in (None, pid))
        answer = eventually(lambda: read(servers), RedisError, psycopg.OperationalError)
        assert answer == ("before", ["before"])


def test_a_stop_is_not_taken_for_a_death(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedServers(data_dir):
        pass
    assert "died" not in capfd.readouterr().out
    assert serving_in(data_dir) == {}


def test_a_frozen_server_can_be_stopped(data_dir: Path) -> None:
    with EmbeddedServers(data_dir) as servers:
        write(servers, "before")
        assert servers.valkey
        assert servers.postgres
        for server in (servers.valkey, servers.postgres):
            assert server.pid
            os.kill(server.pid, signal.SIGSTOP)
    assert serving_in(data_dir) == {}
    with EmbeddedServers(data_dir) as servers:
        assert read(servers) == ("before", ["before"])


@pytest.fixture
def holder(data_dir: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start another process that holds the servers of `data_dir`."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data_dir)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_what_a_killed_sidecar_left_running_is_replaced(
    data_dir: Path, holder: Callable[[], "subprocess.Popen[str]"]
) -> None:
    first = holder()
    servers = EmbeddedServers(data_dir)
    write(servers, "before")
    first.kill()
    first.wait()
    assert serving_in(data_dir) == {"valkey-server": 1, "postgres": 1}
    with servers:
        assert serving_in(data_dir) == {"valkey-server": 1, "postgres": 1}
        assert read(servers) == ("before", ["before"])
    assert serving_in(data_dir) == {}


def test_what_is_left_running_frozen_is_replaced_too(
    data_dir: Path, holder: Callable[[], "subprocess.Popen[str]"]
) -> None:
    first = holder()
    servers = EmbeddedServers(data_dir)
    write(servers, "before")
    first.kill()
    first.wait()
    for process in server_processes(data_dir):
        process.suspend()
    with servers:
        assert read(servers) == ("before", ["before"])


def test_a_second_holder_is_refused_by_name(
    data_dir: Path, holder: Callable[[], "subprocess.Popen[str]"]
) -> None:
    first = holder()
    with pytest.raises(DataDirBusy) as refused, EmbeddedServers(data_dir):
        pass
    assert str(data_dir) in str(refused.value)
    assert f"process {first.pid}" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert serving_in(data_dir) == {"valkey-server": 1, "postgres": 1}


def test_a_data_dir_with_a_path_too_long_for_sockets(server_dir: Path) -> None:
    data_dir = server_dir / ("long" * 15) / ("longer" * 15) / "a space, a 'quote', ü"
    with EmbeddedServers(data_dir) as servers:
        write(servers, "far away")
    with EmbeddedServers(data_dir) as servers:
        assert read(servers) == ("far away", ["far away"])
        assert servers.valkey
        place = servers.valkey.socket.parent
        assert place.stat().st_mode & 0o077 == 0
    assert not place.exists(), "the directory of its socket is not left behind"


def test_somebody_elses_socket_directory_is_not_used(server_dir: Path) -> None:
    home = server_dir / ("x" * MAX_SOCKET_PATH) / "valkey"
    place = socket_dir(home, "valkey.sock")
    place.mkdir()
    place.chmod(0o777)
    try:
        with pytest.raises(ServerFailed, match="alone"):
            ValkeyServer(home).start()
    finally:
        place.rmdir()


def test_stale_pid_files_that_name_strangers_are_not_believed(own_postgres: PostgresServer) -> None:
    """After a reboot, the pid in `postmaster.pid` may be that of any process."""
    own_postgres.stop()
    user = own_postgres.home.stat().st_uid
    stranger = subprocess.Popen(["sleep", "600"], user=user if os.geteuid() == 0 else None)
    try:
        stale = own_postgres.home / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{own_postgres.home}\n1\n5432\n\n\n  1  1\nready\n")
        os.chown(stale, user, -1)
        own_postgres.start()
        own_postgres.stop()
        assert stranger.poll() is None, "the stranger is left alone"
    finally:
        stranger.kill()
        stranger.wait()


def test_an_initialisation_that_was_interrupted_is_begun_anew(server_dir: Path) -> None:
    draft = server_dir / "postgres.new"
    draft.mkdir()
    (draft / "half").write_text("written")
    server = PostgresServer(server_dir / "postgres")
    server.start()
    server.stop()
    assert not draft.exists()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(data_dir: Path) -> None:
    servers = EmbeddedServers(data_dir)
    with servers:
        pass
    assert servers.postgres
    (servers.postgres.home / "global" / "pg_control").unlink()
    with pytest.raises(ServerFailed, match="pg_control"):
        servers.start()
    assert serving_in(data_dir) == {}
    shutil.rmtree(servers.postgres.home)
    with servers:  # and lets go of the directory
        pass


def test_a_start_that_is_told_to_stop_gives_up(own_valkey: ValkeyServer) -> None:
    own_valkey.stop()
    cancelled = threading.Event()
    cancelled.set()
    # It cannot answer on a port nobody asks.
    server = ValkeyServer(own_valkey.home, options=["--unixsocket", ""])
    with pytest.raises(ServerFailed, match="told to stop"):
        server.start(cancelled)
    assert server.pid is None


def test_variables_meant_for_another_postgresql_change_nothing(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGDATA", "/nowhere")
    server = PostgresServer(server_dir / "postgres")
    server.start()
    try:
        psycopg.connect(server.url).close()
    finally:
        server.stop()
