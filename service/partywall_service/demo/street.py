"""Everything a demo runs on, started in a data directory of its own and stopped with it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from secrets import token_urlsafe
from socket import create_server
from typing import IO

import httpx

from partywall_service.embedded import ValkeyServer

QUIET, NOISY = "quiet", "noisy"

START_SECONDS = 60.0
STOP_SECONDS = 15.0


class DemoError(Exception):
    """The demo cannot run; the message says why."""


@dataclass(frozen=True)
class Street:
    """What runs.

    Attributes:
        sidecar: its URL.
        token: the admin's.
        plain: the URL of the host app without Partywall.
        protected: of the same with it.
        redis_url: where both kinds of jobs are queued.
    """

    sidecar: str
    token: str
    plain: str
    protected: str
    redis_url: str


@contextmanager
def open_street(port: int) -> Iterator[Street]:
    """Starts it all, and waits until it answers.

    Args:
        port: the sidecar's; 0 takes a free one.

    Raises:
        DemoError: something does not start.
    """
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="pw-demo-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        data = directory / "data"
        redis_url = ValkeyServer(data / "valkey").url  # as the sidecar starts it
        log = directory / "log"
        config = stack.enter_context(as_file(files("partywall_service.demo") / "quotas.toml"))
        ports = _free_ports(3)
        sidecar = f"http://127.0.0.1:{port or ports[0]}"
        token = token_urlsafe(24)
        inherited = dict(os.environ)
        # Stores of the environment are somebody's: a demo has its own.
        for name in ("PARTYWALL_REDIS_URL", "PARTYWALL_DATABASE_URL", "PARTYWALL_JOBS_REDIS_URL"):
            inherited.pop(name, None)
        environment = inherited | {
            "PARTYWALL_CONFIG": str(config),
            "PARTYWALL_ADMIN_TOKEN": token,
            "PARTYWALL_DATA_DIR": str(data),
            "PARTYWALL_SIDECAR_URL": sidecar,
            "PARTYWALL_TOKEN": token,
            # This machine is about to be busy, which must not look like an outage of Valkey.
            "PARTYWALL_REDIS_TIMEOUT_MS": "1000",
        }
        said = stack.enter_context(log.open("wb"))
        children = _Children(environment, said, stack)
        serve = children.start("serve", "--port", sidecar.rpartition(":")[2], "--with-worker")
        _until_answered(serve, f"{sidecar}/readyz", log)
        _register(sidecar, token)
        shops = []
        for role, shop_port in zip(("plain", "protected"), ports[1:], strict=True):
            shops.append((children.start(role, str(shop_port)), f"http://127.0.0.1:{shop_port}"))
        children.start("worker", "partywall_service.demo.work.Fair")
        children.start("arq", redis_url)
        for process, url in shops:
            _until_answered(process, url, log)
        plain, protected = (url for _, url in shops)
        yield Street(sidecar, token, plain, protected, redis_url)


class _Children:
    """The processes of a demo: each ends with the stack, or with this process, however it ends."""

    def __init__(self, environment: Mapping[str, str], log: IO[bytes], stack: ExitStack) -> None:
        self._environment = environment
        self._log = log
        self._stack = stack

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "partywall_service.demo.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
        )
        self._stack.callback(_stop, process)
        return process


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _until_answered(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False, verify=False) as client:  # noqa: S501 - no TLS
        while time.monotonic() < end:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise DemoError(f"what should answer at {url} ended: {' '.join(last)}")
            try:
                if client.get(url).status_code < 500:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
    raise DemoError(f"{url} did not answer within {START_SECONDS:.0f} s")


def _register(sidecar: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(headers=headers, trust_env=False, verify=False) as client:  # noqa: S501
        for tenant in (QUIET, NOISY):
            answer = client.put(f"{sidecar}/v1/tenants/{tenant}", json={"tier": "standard"})
            if answer.is_error:
                raise DemoError(f"tenant {tenant} was not registered: {answer.text}")
