"""docs/jobs.md: its code, typed in as it stands there, beside a real sidecar and a real worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import SidecarFactory
from tests.support.pages import ROOT, blocks
from tests.support.sidecar import ADMIN_TOKEN

PAGE = ROOT / "docs" / "jobs.md"
PARTYWALL = Path(sys.executable).with_name("partywall")


@contextmanager
def _worker(settings: str, directory: Path, env: dict[str, str]) -> Iterator[None]:
    with (directory / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [PARTYWALL, "worker", settings], cwd=directory, env=env, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            code = worker.wait(timeout=30)
    assert code == 0, (directory / "worker.log").read_text()


def _run(code: str, directory: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_page_runs_as_it_stands(
    sidecar: SidecarFactory, valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """Settings, an app that enqueues and waits, a lane of its own, the queue without a sidecar."""
    settings, app, dedicated, inside, direct, nightly = blocks(PAGE, "python")
    one = sidecar()
    (tmp_path / "jobs.py").write_text(settings)
    (tmp_path / "others.py").write_text(f"{dedicated}\n\n{inside}\n\n{nightly}")
    env = {
        **os.environ,
        "PARTYWALL_SIDECAR_URL": one.url,
        "PARTYWALL_TOKEN": ADMIN_TOKEN,
        "PARTYWALL_REDIS_URL": valkey_url,
        "PARTYWALL_KEY_PREFIX": key_prefix,
    }
    with _worker("jobs.Settings", tmp_path, env):
        assert _run(app, tmp_path, env) == "sent to a@b.c\n"
    with _worker("others.Dedicated", tmp_path, env):
        assert _run(app, tmp_path, env) == "sent to a@b.c\n"
    _run("import others; print(others.Nightly.cron_jobs)", tmp_path, env)
    assert _run(direct, tmp_path, env) == "True queued\n"
