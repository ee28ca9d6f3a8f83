"""`partywall config check`."""

from pathlib import Path

import pytest

from partywall_service.cli.config import rates_text
from partywall_service.policy.loader import parse_rates
from tests.unit.cli.conftest import Partywall


def test_a_valid_policy_is_summed_up(partywall: Partywall, quotas: Path) -> None:
    result = partywall("config", "check", str(quotas))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.split("  ")[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert rows["limits.requests"] == ["100/minute", "1000/minute", "10000/minute"]
    assert rows["quotas.storage"] == ["1", "GiB", "50", "GiB", "unlimited"]
    assert rows["quotas.emails"][:3] == ["500", "a", "month"]
    assert rows["jobs.concurrency"] == ["2", "8", "32"]
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "3 tiers; tenants that nobody registered get free" in " ".join(result.stdout.split())


def test_what_is_unusual_is_shown(partywall: Partywall, tmp_path: Path) -> None:
    policy = tmp_path / "quotas.toml"
    policy.write_text(
        '[tiers.a.limits]\nx = { rate = "5/hour", enforce = false, on_outage = "closed" }\n'
        'y = ["7 per 3 minutes", "3/second"]\n'
        '[tiers.a.quotas]\nodd = "1500 B"\n'
        "[tiers.b]\n"
        "[tiers.b.jobs]\nqueue = 'dedicated'\n"
    )
    result = partywall("config", "check", str(policy))
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "limits.x 5/hour (observed only) (closed on outage) unlimited" in said
    assert "limits.y 3/second, 7 per 3 minutes unlimited" in said
    assert "quotas.odd 1500 B unlimited" in said
    assert "jobs.queue - dedicated" in said
    assert "tenants that nobody registered are refused" in said


def test_many_tiers_stay_readable(partywall: Partywall, tmp_path: Path) -> None:
    policy = tmp_path / "quotas.toml"
    policy.write_text(
        "".join(f"[tiers.a-rather-long-tier-{n}]\nweight = {n}\n" for n in range(1, 10))
    )
    result = partywall("config", "check", str(policy))
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    weights = [line.split()[1:] for line in result.stdout.splitlines() if "weight" in line]
    assert weights == [["1", "2", "3", "4"], ["5", "6", "7", "8"], ["9"]]


def test_every_error_is_a_line_with_its_place(partywall: Partywall, tmp_path: Path) -> None:
    policy = tmp_path / "broken.toml"
    policy.write_text(
        'default_tier = "gold"\n'
        "[tiers.free]\nweight = -1\n"
        '[tiers.free.limits]\nrequests = "often"\n'
    )
    result = partywall("config", "check", str(policy))
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{policy}: ") for line in lines)
    for place in ("default_tier: ", "tiers.free.weight: ", "tiers.free.limits.requests: "):
        assert sum(place in line for line in lines) == 1


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"[tiers", b"tiers = 3"], ids=str)
def test_a_file_that_is_no_policy_is_an_error(
    partywall: Partywall, tmp_path: Path, content: bytes | None
) -> None:
    policy = tmp_path / "quotas.toml"
    if content is not None:
        policy.write_bytes(content)
    result = partywall("config", "check", str(policy))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{policy}: ")


@pytest.mark.parametrize(
    "text",
    ["1/second", "100/minute", "5/hour", "9/day", "2/month", "7 per 3 minutes", "8 per 90 seconds"],
)
def test_rates_are_shown_as_they_can_be_written(text: str) -> None:
    assert rates_text(parse_rates(text)) == text
