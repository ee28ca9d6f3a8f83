"""`partywall simulate`: one log in, one verdict on it out."""

import gzip
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Partywall

SAMPLE = Path(__file__).parents[2] / "data" / "access.log"
LINE = '192.0.2.1 - - [29/Mar/2026:03:00:00 +0200] "GET / HTTP/1.1" 200 512\n'
POLICY = """\
[tiers.free.limits]
requests = "3/minute"
watched = { rate = "1/minute", enforce = false }
burst = "5/second"
[tiers.paid.limits]
requests = "unlimited"
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return str(path)


def test_json_is_the_contracts(partywall: Partywall, policy: str) -> None:
    result = partywall(
        *("simulate", str(SAMPLE), "--tier", "free", "--limit", "requests"),
        *("--config", policy, "--tenant-from", "host", "--format", "json"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["requests", "admitted", "denied", "skipped_lines", "tenants"]
    assert [report[name] for name in list(report)[:4]] == [11, 9, 2, 4]
    assert report["tenants"][0] == {
        "tenant": "192.0.2.1",
        "requests": 5,
        "admitted": 3,
        "denied": 2,
    }


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_standard_input_may_be_plain_or_gzip(
    partywall: Partywall, policy: str, compress: object
) -> None:
    content = compress(SAMPLE.read_bytes())  # type: ignore[operator] # a function
    result = partywall(
        *("simulate", "-", "--tier", "free", "--config", policy, "--format", "json"),
        stdin=content,
    )
    assert json.loads(result.stdout)["requests"] == 11


def test_the_table_fits_80_columns_and_cuts_no_name(partywall: Partywall, policy: str) -> None:
    long = "a-host-name-that-goes-on.and-on.and-on.and-on.and-on.and-on.and-on.example"
    content = SAMPLE.read_text() + LINE.replace("192.0.2.1", long) * 4
    result = partywall("simulate", "-", "--tier", "free", "--config", policy, stdin=content)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "standard input: 15 requests of 6 tenants; lines skipped: 4"
    assert lines[1] == "from 2026-03-29 00:59:59 to 2026-03-29 01:00:06 UTC"
    assert lines[2] == "tier free, limit requests (3/minute): 12 admitted, 3 denied (20.0%)"
    assert long in "".join(line.split(" ")[0] for line in lines)
    row = next(line.split() for line in lines if line.startswith("192.0.2.1 "))
    assert row == ["192.0.2.1", "5", "3", "2", "40.0%", "66.7%"]


def test_the_table_shows_the_top_and_says_how_many_more(partywall: Partywall, policy: str) -> None:
    content = "".join(LINE.replace("192.0.2.1", f"192.0.2.{n}") for n in range(50))
    result = partywall("simulate", "-", "--tier", "free", "--config", policy, stdin=content)
    assert "and 30 more" in result.stdout
    assert sum(line.startswith("192.") for line in result.stdout.splitlines()) == 20


def test_a_tenants_name_is_text_whatever_is_in_it(partywall: Partywall, policy: str) -> None:
    """A log is written by strangers: no markup, no terminal command of theirs is obeyed."""
    content = LINE.replace("192.0.2.1", "[red]\x1b[2J[/red]")
    result = partywall("simulate", "-", "--tier", "free", "--config", policy, stdin=content)
    assert r"[red]\x1b[2J[/red]" in result.stdout
    assert "\x1b" not in result.stdout


def test_an_observed_limit_says_that_it_would_admit(partywall: Partywall, policy: str) -> None:
    result = partywall(
        *("simulate", str(SAMPLE), "--tier", "free", "--limit", "watched", "--config", policy)
    )
    assert "only observes" in result.stdout
    assert "6 denied" in result.stdout


def test_a_window_shorter_than_a_log_can_tell_is_noted(partywall: Partywall, policy: str) -> None:
    def run(limit: str) -> str:
        arguments = ("--tier", "free", "--limit", limit, "--config", policy)
        return partywall("simulate", str(SAMPLE), *arguments).stdout

    assert "whole seconds" in run("burst")
    assert "whole seconds" not in run("requests")


@pytest.mark.parametrize("limit", ["requests", "watched"])
def test_a_tier_without_the_limit_admits_everything(
    partywall: Partywall, policy: str, limit: str
) -> None:
    result = partywall(
        *("simulate", str(SAMPLE), "--tier", "paid", "--limit", limit, "--config", policy),
        *("--format", "json"),
    )
    assert json.loads(result.stdout)["denied"] == 0


def test_an_empty_log_is_no_error(partywall: Partywall, policy: str) -> None:
    for form in ("table", "json"):
        result = partywall(
            *("simulate", "-", "--tier", "free", "--config", policy, "--format", form), stdin=b""
        )
        assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["tenants"] == []


def test_a_log_without_any_request_is_counted_and_warned_of(
    partywall: Partywall, policy: str
) -> None:
    result = partywall(
        *("simulate", "-", "--tier", "free", "--config", policy, "--format", "json"),
        stdin='{"json": 1}\n' * 3,
    )
    assert (result.exit_code, json.loads(result.stdout)["skipped_lines"]) == (0, 3)
    assert "expected Common or Combined log format" in result.stderr


def test_the_policy_is_the_environments_unless_a_flag_names_one(
    partywall: Partywall, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("simulate", str(SAMPLE), "--tier", "free")
    assert "quotas.toml: " in partywall(*arguments).stderr
    monkeypatch.setenv("PARTYWALL_CONFIG", policy)
    assert partywall(*arguments).exit_code == 0
    assert "other.toml: " in partywall(*arguments, "--config", "other.toml").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.log", "--tier", "free"], 1, "cannot read missing.log: No such file"),
        ([".", "--tier", "free"], 1, "cannot read .: Is a directory"),
        ([str(SAMPLE), "--tier", "gold"], 1, "no tier 'gold'; expected one of free, paid"),
        (
            [str(SAMPLE), "--tier", "free", "--limit", "x"],
            1,
            "no limit 'x'; expected one of burst, requests, watched",
        ),
        ([str(SAMPLE), "--tier", "free", "--tenant-from", "("], 2, "regular expression, got '('"),
        ([str(SAMPLE), "--tier", "free", "--tenant-from", "(a)(b)"], 2, "expected one group"),
    ],
)
def test_mistakes_are_one_sentence(
    partywall: Partywall, policy: str, arguments: list[str], code: int, said: str
) -> None:
    result = partywall("simulate", *arguments, "--config", policy)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_broken_gzip_is_one_sentence(partywall: Partywall, policy: str) -> None:
    result = partywall(
        *("simulate", "-", "--tier", "free", "--config", policy),
        stdin=gzip.compress(SAMPLE.read_bytes())[:-9],
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("standard input is broken gzip: ")
    assert result.stderr.count("\n") == 1


def _command(policy: str, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "partywall_service", "simulate", *arguments]
    return [*start, "--tier", "free", "--config", policy]


def test_a_reader_that_has_seen_enough_is_no_error(policy: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(LINE.replace("192.0.2.1", f"host-{n}") for n in range(5000)))
    for form in ("json", "table"):
        command = _command(policy, str(log), "--format", form)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()  # before anything is written
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (1, b"")


@pytest.mark.parametrize("form", ["json", "table"])
def test_a_full_disk_is_one_sentence(policy: str, form: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            _command(policy, str(SAMPLE), "--format", form),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "cannot write the result: No space left on device\n"


def test_ctrl_c_ends_it_quietly(policy: str) -> None:
    process = subprocess.Popen(
        _command(policy, "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(LINE.encode() * 100_000)  # more than a pipe holds, so it is reading
    process.send_signal(signal.SIGINT)
    process.stdin.flush()
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (130, b"", b"")


def test_a_terminal_sees_progress_on_stderr_and_keeps_nothing_of_it(policy: str) -> None:
    terminal, end = pty.openpty()
    done = subprocess.run(
        _command(policy, str(SAMPLE), "--format", "json"),
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm-256color"},
        check=True,
        timeout=60,
    )
    os.close(end)
    seen = b""
    try:
        while some := os.read(terminal, 65536):
            seen += some
    except OSError:  # Linux's end of a terminal
        pass
    os.close(terminal)
    assert b"Reading" in seen
    assert seen.endswith(b"\x1b[2K")  # the line is cleared
    assert json.loads(done.stdout)["requests"] == 11
