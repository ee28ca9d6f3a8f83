"""`partywall demo`, as a person starts it; how fast it is nobody asks here."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

COMMAND = [sys.executable, "-m", "partywall_service", "demo", "--seconds", "1", "--port", "0"]


def processes_of(directory) -> list[psutil.Process]:
    """What still runs of a demo whose temporary files are there."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("TMPDIR") == str(directory)
    ]


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}


def test_it_plays_four_scenes_and_leaves_nothing_running(tmp_path, environment):
    done = subprocess.run(
        [*COMMAND, "--format", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/dashboard, with the token" in done.stderr
    scenes = json.loads(done.stdout)["scenes"]
    assert [(scene["partywall"], scene["noisy"]) for scene in scenes] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]
    for scene in scenes:
        assert scene["requests"]["p50"] <= scene["requests"]["p99"]
        # The noisy tenant is only ever denied by Partywall, and there it is.
        assert (scene["noisy_denied"] > 0) == (scene["partywall"] and scene["noisy"])
        assert (scene["noisy_admitted"] > 0) == scene["noisy"]
    assert not scenes[3]["jobs"]["still_waiting"]
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("pw-demo-*")) == []


def test_an_interrupt_ends_all_of_it(tmp_path, environment):
    demo = subprocess.Popen(
        COMMAND,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with demo:
        assert demo.stderr is not None
        assert any("/dashboard" in line for line in demo.stderr)
        assert len(processes_of(tmp_path)) > 4
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in said
    assert processes_of(tmp_path) == []
