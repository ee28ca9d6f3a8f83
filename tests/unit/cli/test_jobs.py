"""`partywall jobs`: what it asks, and makes of each answer (real ones: acceptance tests)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.cli.conftest import Partywall
from tests.unit.cli.fake_sidecar import FakeSidecar, Reply

JOB: dict[str, Any] = {
    "job_id": "1f0c",
    "tenant": "acme",
    "function": "send_email",
    "status": "queued",
    "priority": 5,
    "attempts": 0,
    "queued_at": "2026-11-23T10:00:00.000Z",
    "run_at": "2026-11-23T10:00:00.000Z",
    "started_at": None,
    "finished_at": None,
    "error": None,
    "result": None,
    "traceback": None,
}
DEAD = JOB | {
    "status": "dead",
    "attempts": 3,
    "error": "ValueError: [bold]no[/]\nsecond line",
    "traceback": 'Traceback (most recent last):\n  File "x.py", line 1\nValueError: \x1b[31mno',
}
SWITCHED = {"tenant": "acme", "paused": True, "purged": 0}
AWAY = (503, {"detail": "Redis does not answer now; try again"})


@pytest.fixture
def fake(fake_sidecar: FakeSidecar) -> FakeSidecar:
    return fake_sidecar


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "acme"),
        ("show", "acme", "1f0c"),
        ("cancel", "acme", "1f0c"),
        ("retry", "acme", "1f0c", "--json"),
        ("pause", "acme"),
        ("resume", "acme"),
        ("purge", "acme", "--yes"),
        ("top", "--once"),
    ],
)
@pytest.mark.parametrize("body", [{}, ["?"], {"jobs": [{}], "tenants": [{}], "paused": "?"}])
def test_an_answer_that_is_none_is_one_sentence(
    partywall: Partywall, fake: FakeSidecar, arguments: tuple[str, ...], body: object
) -> None:
    fake.reply = lambda _method, _path: (200, body)
    result = partywall("jobs", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "answered something else than a Partywall sidecar" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_list_asks_for_no_more_than_it_shows(partywall: Partywall, fake: FakeSidecar) -> None:
    fake.reply = lambda _method, _path: (200, {"jobs": [JOB, DEAD, JOB], "next_cursor": "more"})
    result = partywall("jobs", "list", "acme", "--status", "dead", "--limit", "2")
    assert result.exit_code == 0
    assert fake.asked == [("GET", "/v1/tenants/acme/jobs?status=dead&page_size=3")]
    assert result.stderr == "there are older ones; --limit shows more than 2\n"
    first, second = (line.split() for line in result.stdout.splitlines()[2:4])
    assert first[:3] == ["1f0c", "send_email", "queued"]
    assert second[:3] == ["1f0c", "send_email", "dead"]
    assert second[-1] == "[bold]no[/]"
    assert "second line" not in result.stdout


def test_ages_are_told_and_ids_are_whole(partywall: Partywall, fake: FakeSidecar) -> None:
    queued = datetime.now(UTC) - timedelta(minutes=3, seconds=7)
    long = JOB | {"job_id": "i" * 200, "queued_at": queued.isoformat(timespec="milliseconds")}
    fake.reply = lambda _method, _path: (200, {"jobs": [long], "next_cursor": None})
    line = partywall("jobs", "list", "acme").stdout.splitlines()[2].split()
    assert line[:3] == ["i" * 200, "send_email", "queued"]
    assert line[3].startswith("3m")
    assert line[4:] == ["0", "-"]


def test_a_job_is_shown_with_where_its_error_was_raised(
    partywall: Partywall, fake: FakeSidecar
) -> None:
    fake.reply = lambda _method, _path: (200, DEAD)
    result = partywall("jobs", "show", "acme", "1f0c")
    assert result.exit_code == 0
    assert "2026-11-23 10:00:00 UTC" in result.stdout
    assert '\n  File "x.py", line 1\nValueError: \\x1b[31mno\n' in result.stdout


def test_a_result_is_shown_as_json(partywall: Partywall, fake: FakeSidecar) -> None:
    fake.reply = lambda _method, _path: (200, JOB | {"status": "succeeded", "result": {"n": 1}})
    result = partywall("jobs", "show", "acme", "1f0c")
    assert '{"n": 1}' in result.stdout
    assert "error" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "asked", "answer", "said"),
    [
        (
            ("cancel", "acme", "1f0c"),
            ("DELETE", "/v1/tenants/acme/jobs/1f0c"),
            JOB | {"status": "cancelled"},
            "job 1f0c of acme is cancelled",
        ),
        (
            ("cancel", "acme", "1f0c"),
            ("DELETE", "/v1/tenants/acme/jobs/1f0c"),
            JOB | {"status": "running"},
            (
                "job 1f0c of acme is asked to end, and still running; "
                "`partywall jobs show acme 1f0c` tells what came of it"
            ),
        ),
        (
            ("retry", "acme", "1f0c"),
            ("POST", "/v1/tenants/acme/jobs/1f0c/retry"),
            JOB,
            "job 1f0c of acme is queued again",
        ),
        (
            ("pause", "acme"),
            ("POST", "/v1/tenants/acme/jobs/pause"),
            SWITCHED,
            "acme is paused; `partywall jobs resume acme` goes on with its jobs",
        ),
        (
            ("resume", "acme"),
            ("POST", "/v1/tenants/acme/jobs/resume"),
            SWITCHED | {"paused": False},
            "acme is not paused",
        ),
        (
            ("purge", "acme", "-y"),
            ("POST", "/v1/tenants/acme/jobs/purge"),
            SWITCHED | {"purged": 1234},
            "1,234 waiting jobs of acme are cancelled",
        ),
    ],
)
def test_a_change_is_told_in_a_sentence_and_in_json(
    partywall: Partywall,
    fake: FakeSidecar,
    arguments: tuple[str, ...],
    asked: tuple[str, str],
    answer: object,
    said: str,
) -> None:
    fake.reply = lambda _method, _path: (200, answer)
    result = partywall("jobs", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{said}\n")
    as_json = partywall("jobs", *arguments, "--format", "json")
    assert (json.loads(as_json.stdout), as_json.stderr) == (answer, "")
    assert fake.asked == [asked, asked]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("reply", [AWAY, (0, None)])
def test_a_change_without_an_answer_says_how_to_learn_of_it(
    partywall: Partywall, fake: FakeSidecar, verb: str, reply: Reply
) -> None:
    fake.reply = lambda _method, _path: reply
    result = partywall("jobs", verb, "acme", "1f0c")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "it may have been done: `partywall jobs show acme 1f0c` tells" in result.stderr


def test_a_refusal_is_the_sidecars_own_sentence(partywall: Partywall, fake: FakeSidecar) -> None:
    fake.reply = lambda _method, _path: (409, {"detail": "the job has succeeded"})
    result = partywall("jobs", "cancel", "acme", "1f0c")
    assert (result.exit_code, result.stderr) == (1, "the job has succeeded\n")
