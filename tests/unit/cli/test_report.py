"""`partywall report`: what it asks for, and what it makes of the answer."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from partywall_service.cli.report_period import read_instant
from tests.unit.cli.conftest import Partywall
from tests.unit.cli.fake_sidecar import FakeSidecar

NOW = datetime(2026, 3, 15, 10, 30, 20, 5, UTC)


def tenant(name: str, tier: str = "pro", *, denied: int = 0, **other: Any) -> dict[str, Any]:
    counts = {"admitted": 1000, "denied": denied, "would_deny": 0, "degraded": 0}
    return {
        "tenant": name,
        "name": f"={name}",
        "tier": tier,
        "status": "active",
        **counts,
        "limits": [{"limit": "requests", **counts}],
        "limits_hit": ["requests"] if denied else [],
        "requests": {"in_flight_seconds": 1.5, "2xx": 7},
        "jobs": {
            "started": 2,
            "succeeded": 2,
            "failed": 0,
            "run_seconds": 3.5,
            "wait_seconds": 0.0,
        },
        "quotas": [
            {"resource": "users", "unit": "count", "used": 4, "limit": 5, "days_until_full": 2.4}
        ],
        **other,
    }


@pytest.fixture
def tenants(fake_sidecar: FakeSidecar) -> FakeSidecar:
    """Answers with three of them, on two pages."""
    first = [tenant("acme"), tenant("b.corp", "free", denied=250)]
    second = [tenant("umbrella", denied=1)]

    def reply(_: str, path: str) -> tuple[int, object]:
        page, cursor = (second, None) if "cursor" in path else (first, "more")
        return 200, {"tenants": page, "next_cursor": cursor}

    fake_sidecar.reply = reply
    return fake_sidecar


def asked(sidecar: FakeSidecar) -> list[dict[str, str]]:
    return [
        {name: value for name, (value,) in parse_qs(urlsplit(path).query).items()}
        for _, path in sidecar.asked
    ]


def test_it_asks_for_the_same_period_on_each_page(
    partywall: Partywall, tenants: FakeSidecar
) -> None:
    result = partywall("report", "--from", "2026-11-01", "--to", "2026-12-01", "--tier", "pro")
    assert result.exit_code == 0, result.stderr
    period = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    pages = [{**period, "tier": "pro", "page_size": "1000"}]
    assert asked(tenants) == [*pages, {**pages[0], "cursor": "more"}]
    assert {urlsplit(path).path for _, path in tenants.asked} == {"/v1/reports/usage"}


def test_the_table_has_who_was_denied_most_first(
    partywall: Partywall, tenants: FakeSidecar
) -> None:
    text = partywall("report", "--from", "2026-11-01", "--to", "2026-11-02").stdout
    period, summary, *table = (line for line in text.splitlines() if line.strip())
    assert period == "2026-11-01 00:00 to 2026-11-02 00:00 UTC"
    assert summary == "3 tenants: 3,000 admitted, 251 denied"
    assert [line.split()[0] for line in table[2:]] == ["b.corp", "umbrella", "acme"]
    assert "users in 2 d" in table[2]
    assert table[2].split()[-6:] == ["1,000", "250", "0", "2", "5.0", "s"]


def test_by_tier_it_sums_up(partywall: Partywall, tenants: FakeSidecar) -> None:
    answer = json.loads(partywall("report", "--by", "tier", "--format", "json").stdout)
    free, pro = answer["tiers"]
    assert (free["tier"], free["tenants"], free["denied"]) == ("free", 1, 250)
    assert (pro["tier"], pro["tenants"], pro["admitted"], pro["denied"]) == ("pro", 2, 2000, 1)
    assert pro["limits"] == [
        {"limit": "requests", "admitted": 2000, "denied": 1, "would_deny": 0, "degraded": 0}
    ]
    assert pro["requests"] == {"in_flight_seconds": 3.0, "2xx": 14}
    assert pro["jobs"]["run_seconds"] == 7.0
    table = partywall("report", "--by", "tier").stdout.splitlines()
    assert [line.split()[:2] for line in table[-2:]] == [["free", "1"], ["pro", "2"]]


def test_json_is_what_the_sidecar_said(partywall: Partywall, tenants: FakeSidecar) -> None:
    answer = json.loads(
        partywall("report", "--from", "2026-11-01", "--to", "2026-11-02", "--format", "json").stdout
    )
    assert answer == {
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00Z",
        "tenants": [
            tenant("acme"),
            tenant("b.corp", "free", denied=250),
            tenant("umbrella", denied=1),
        ],
        "next_cursor": None,
    }


@pytest.mark.parametrize("by", ["tenant", "tier"])
def test_csv_has_a_header_and_runs_nothing(
    partywall: Partywall, tenants: FakeSidecar, by: str
) -> None:
    text = partywall("report", "--by", by, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert all(None not in row and None not in row.values() for row in rows)
    if by == "tier":
        assert [(row["tier"], row["tenants"]) for row in rows] == [("free", "1"), ("pro", "2")]
        return
    assert [row["name"] for row in rows] == ["'=acme", "'=b.corp", "'=umbrella"]
    assert rows[1]["limits.requests.denied"] == "250"
    assert rows[0]["quotas.users.days_until_full"] == "2.4"
    assert rows[0]["jobs.run_seconds"] == "3.5"
    assert "\r" not in text


def test_limit_hits_are_a_line_for_each_limit(partywall: Partywall, tenants: FakeSidecar) -> None:
    table = partywall("report", "--limit-hits").stdout.splitlines()
    assert [line.split() for line in table[-2:]] == [
        ["b.corp", "free", "requests", "1,000", "250", "20.0%"],
        ["umbrella", "pro", "requests", "1,000", "1", "0.1%"],
    ]
    answer = json.loads(partywall("report", "--limit-hits", "--format", "json").stdout)
    assert [one["tenant"] for one in answer["tenants"]] == ["b.corp", "umbrella"]


def test_a_page_that_cannot_be_given_now_is_asked_for_again(
    partywall: Partywall, tenants: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("partywall_service.cli.client.time.sleep", slept.append)
    tenants.retry_after = "1"
    stalls, whole = [503, 503], tenants.reply

    def stalled(method: str, path: str) -> tuple[int, object]:
        if "cursor" in path and stalls:
            return stalls.pop(), {"type": "urn:partywall:problem:store-unavailable", "status": 503}
        return whole(method, path)

    tenants.reply = stalled
    result = partywall("report", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert [one["tenant"] for one in json.loads(result.stdout)["tenants"]] == [
        *("acme", "b.corp", "umbrella")
    ]
    assert slept == [1, 1]
    stalls += [503] * 3
    assert partywall("report", "--format", "json").exit_code == 1


def test_one_tenant_is_one(partywall: Partywall, fake_sidecar: FakeSidecar) -> None:
    fake_sidecar.reply = lambda *_: (200, {"tenants": [tenant("acme")], "next_cursor": None})
    assert "1 tenant: 1,000 admitted" in partywall("report").stdout


def test_counts_of_requests_are_whole_numbers(partywall: Partywall, tenants: FakeSidecar) -> None:
    (first, *_) = json.loads(partywall("report", "--format", "json").stdout)["tenants"]
    assert repr(first["requests"]) == "{'in_flight_seconds': 1.5, '2xx': 7}"


@pytest.mark.parametrize("arguments", [(), ("--limit-hits",), ("--by", "tier")])
def test_nobody_is_no_error(
    partywall: Partywall, fake_sidecar: FakeSidecar, arguments: tuple[str, ...]
) -> None:
    fake_sidecar.reply = lambda _method, _path: (200, {"tenants": [], "next_cursor": None})
    result = partywall("report", "--from", "2026-11-01", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "0 tenants" in result.stdout
    result = partywall("report", *arguments, "--format", "csv")
    assert result.stdout.count("\n") == 1


def test_a_refusal_is_one_sentence(partywall: Partywall, fake_sidecar: FakeSidecar) -> None:
    problem = {"title": "No", "detail": "from: expected an instant before now"}
    fake_sidecar.reply = lambda _method, _path: (422, problem)
    result = partywall("report", "--from", "2099-01-01")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "from: expected an instant before now\n"


def test_another_answer_is_no_sidecar_s(partywall: Partywall, fake_sidecar: FakeSidecar) -> None:
    fake_sidecar.reply = lambda _method, _path: (200, {"tenants": [{"tenant": "acme"}]})
    result = partywall("report")
    assert result.exit_code == 1
    assert "something else than a Partywall sidecar" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-03-15T10:30"),
        ("today", "2026-03-15T00:00"),
        ("yesterday", "2026-03-14T00:00"),
        ("month", "2026-03-01T00:00"),
        ("last-month", "2026-02-01T00:00"),
        ("90m", "2026-03-15T09:00"),
        ("24h", "2026-03-14T10:30"),
        ("7d", "2026-03-08T00:00"),
        ("2w", "2026-03-01T00:00"),
        ("2026-02-28", "2026-02-28T00:00"),
        ("2026-02-28T12:00", "2026-02-28T12:00"),
        ("2026-02-28T12:00Z", "2026-02-28T12:00"),
        ("2026-02-28T12:00:00+02:00", "2026-02-28T10:00"),
    ],
)
def test_instants_as_people_name_them(text: str, expected: str) -> None:
    assert read_instant(text, NOW) == datetime.fromisoformat(f"{expected}:00+00:00")


@pytest.mark.parametrize(
    "text",
    ["", "7", "d", "-7d", "7y", "999999w", "2026-13-01", "2026-02-30", "0001-01-01T00:00+23:00"],
)
def test_what_is_no_instant_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected a date such as"):
        read_instant(text, NOW)
