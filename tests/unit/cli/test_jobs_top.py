"""`partywall jobs top`: one table of two looks, a live one for a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from itertools import count
from typing import Any

import pytest

from partywall_service.cli.jobs_table import lasting
from partywall_service.cli.jobs_top import AROUND
from tests.unit.cli.conftest import Partywall
from tests.unit.cli.fake_sidecar import FakeSidecar, Reply

QUEUE: dict[str, Any] = {
    "tenant": "acme",
    "tier": "pro",
    "lane": "default",
    "weight": 4.0,
    "queued": 12_000,
    "deferred": 3,
    "running": 2,
    "dead": 1,
    "oldest_wait": 200.7,
    "concurrency": 8,
    "max_queued": None,
    "paused": False,
    "held": None,
    "claims": 100,
    "retries": 0,
    "died": 1,
    "expired": 0,
}
OTHER = QUEUE | {"tenant": "b", "tier": None, "concurrency": None, "queued": 0, "deferred": 1000}


def rows(text: str) -> dict[str, list[str]]:
    """The table's lines by tenant."""
    return {words[0]: words for line in text.splitlines() if (words := line.split())}


@pytest.fixture
def fake(fake_sidecar: FakeSidecar) -> FakeSidecar:
    """One that starts ten of acme's jobs between two looks, and none of b's."""
    looks = count()

    def reply(_method: str, _path: str) -> Reply:
        acme = QUEUE | {"claims": 100 + 10 * next(looks)}
        return 200, {"tenants": [acme, OTHER], "next_cursor": None}

    fake_sidecar.reply = reply
    return fake_sidecar


def test_two_looks_make_one_table_with_claims_a_second(
    partywall: Partywall, fake: FakeSidecar
) -> None:
    result = partywall("jobs", "top", "--interval", "0.05")  # stdout is no terminal: as --once
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(fake.asked) == 2
    assert result.stdout.startswith("queues shown: 2; jobs queued: 12,000, running: 4\n")
    found = rows(result.stdout)
    assert found["acme"][:-1] == [*("acme", "pro", "4", "12,000", "3", "2/8", "3m20s", "1")]
    assert 0 < float(found["acme"][-1].replace(",", "")) <= 10 / 0.05
    assert found["b"][1:] == ["-", "4", "0", "1,000", "2/-", "-", "1", "0.0"]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"paused": True}, "paused"),
        ({"held": "suspended"}, "suspended"),
        ({"max_queued": 1000}, "full"),
        ({"max_queued": 1001}, ""),
        ({"paused": True, "held": "unknown", "max_queued": 0}, "paused,unknown,full"),
    ],
)
def test_its_state_says_why_nothing_starts(
    partywall: Partywall, fake_sidecar: FakeSidecar, told: dict[str, object], state: str
) -> None:
    fake_sidecar.reply = lambda _method, _path: (200, {"tenants": [OTHER | told]})
    result = partywall("jobs", "top", "--once", "--interval", "0.001")
    assert "".join(rows(result.stdout)["b"]).startswith(f"b-{state}4")


def test_lanes_are_told_where_there_are_some_and_a_pipe_has_room_for_every_name(
    partywall: Partywall, fake_sidecar: FakeSidecar
) -> None:
    long = QUEUE | {"tenant": "t" * 128, "lane": "dedicated", "tier": "e" * 64}
    fake_sidecar.reply = lambda _method, _path: (200, {"tenants": [long, QUEUE]})
    result = partywall("jobs", "top", "--once", "--interval", "0.001")
    found = rows(result.stdout)
    assert found["t" * 128][1:3] == ["e" * 64, "dedicated"]
    assert found["acme"][1:3] == ["pro", "default"]


def test_a_queue_made_anew_counts_no_claims(
    partywall: Partywall, fake_sidecar: FakeSidecar
) -> None:
    looks = count()
    fake_sidecar.reply = lambda _method, _path: (
        200,
        {"tenants": [QUEUE | {"claims": 100 - next(looks)}]},
    )
    result = partywall("jobs", "top", "--once", "--interval", "0.001")
    assert rows(result.stdout)["acme"][-1] == "-"


def test_json_is_the_apis_answer(partywall: Partywall, fake: FakeSidecar) -> None:
    result = partywall("jobs", "top", "--format", "json", "--limit", "7")
    assert [one["tenant"] for one in json.loads(result.stdout)["tenants"]] == ["acme", "b"]
    assert fake.asked == [("GET", "/v1/queues?page_size=7")]


@pytest.mark.parametrize("interval", ["-1", "nan", "inf"])
def test_an_interval_is_above_nothing(partywall: Partywall, interval: str) -> None:
    result = partywall("jobs", "top", "--interval", interval)
    assert result.exit_code == 2
    assert "expected seconds above 0" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.9, "0s"), (59, "59s"), (60, "1m00s"), (7_384, "2h03m"), (200_000, "2d07h")],
)
def test_lengths_of_time_are_short(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


TOP = ("jobs", "top", "--interval", "0.02")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "partywall_service", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={name: it for name, it in os.environ.items() if name != "COLUMNS"}
            | {"TERM": "xterm"},
        )
        os.close(theirs)

    def until(self, text: str) -> None:
        """Read on until it says so, from here on."""
        begin = len(self.seen)
        while text not in self.seen[begin:]:
            self.seen += os.read(self._ours, 65536).decode(errors="replace")

    def interrupted(self) -> int:
        """Its exit code after a Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # nobody has the other end any more
            while True:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_on_a_terminal_it_goes_on_through_an_outage_until_interrupted(fake: FakeSidecar) -> None:
    working, away = fake.reply, (503, {"detail": "Redis does not answer now"})
    with contextlib.closing(Terminal(*TOP)) as terminal:
        terminal.until("jobs queued: 12,000")
        fake.reply = lambda _method, _path: away
        terminal.until("not answered now: Redis does not answer now")
        terminal.until("acme")  # what was known last stays in sight
        fake.reply = working
        terminal.until("jobs queued: 12,000")
        assert terminal.interrupted() == 0
    assert "Traceback" not in terminal.seen
    assert {path for _, path in fake.asked} == {f"/v1/queues?page_size={24 - AROUND}"}


def test_who_may_not_ask_is_told_before_the_screen_is_taken(fake_sidecar: FakeSidecar) -> None:
    fake_sidecar.reply = lambda _method, _path: (403, {"detail": "only for admin and host"})
    with contextlib.closing(Terminal(*TOP)) as terminal:
        terminal.until("only for admin and host")
        assert terminal.process.wait(30) == 1
    assert "\x1b[?1049h" not in terminal.seen  # another screen
