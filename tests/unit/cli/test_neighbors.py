"""`partywall neighbors`: a table of verdicts, once or live."""

import contextlib
import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Partywall
from tests.unit.cli.fake_sidecar import FakeSidecar
from tests.unit.cli.test_jobs_top import Terminal

LOUD: dict[str, Any] = {
    "tenant": "loud",
    "tier": "free",
    "requests": 12_000,
    "denied": 9_000,
    "share": 0.96,
    "fair_share": 0.5,
    "verdict": "noisy",
    "reason": "9,000 of its 12,000 requests were denied, more than half.",
    "resource": "requests",
}
QUIET = LOUD | {"tenant": "quiet", "requests": 500, "share": 0.04, "verdict": "victim"}


@pytest.fixture
def fake(fake_sidecar: FakeSidecar) -> FakeSidecar:
    answer = {"tenants": [LOUD, QUIET], "next_cursor": None}
    fake_sidecar.reply = lambda _method, _path: (200, answer)
    return fake_sidecar


def test_a_line_for_each_says_how_much_and_why(partywall: Partywall, fake: FakeSidecar) -> None:
    result = partywall("neighbors", "--window", "15m", "--top", "5")
    assert (result.exit_code, result.stderr) == (0, "")
    assert fake.asked == [("GET", "/v1/reports/neighbors?window=15m&top=5")]
    first, _, _, _, loud, quiet = result.stdout.splitlines()
    assert first == "tenants shown: 2; noisy: 1, victims: 1"
    assert loud.split()[:7] == ["loud", "free", "12,000", "9,000", "96.0%", "50.0%", "noisy"]
    assert loud.endswith(LOUD["reason"])  # a pipe has room for all of it
    assert quiet.split()[0] == "quiet"


def test_json_is_the_apis_answer(partywall: Partywall, fake: FakeSidecar) -> None:
    result = partywall("neighbors", "--format", "json", "--watch")
    assert json.loads(result.stdout)["tenants"] == [LOUD, QUIET]
    assert fake.asked == [("GET", "/v1/reports/neighbors?window=1h&top=20")]


@pytest.mark.parametrize("window", ["0m", "25h", "1441m", "1d", "h", "1h\n", "٣h"])
def test_a_window_is_up_to_a_day(partywall: Partywall, window: str) -> None:
    result = partywall("neighbors", "--window", window)
    assert result.exit_code == 2
    assert "expected minutes or hours up to a day" in result.stderr


def test_on_a_terminal_it_watches_until_interrupted(fake: FakeSidecar) -> None:
    with contextlib.closing(Terminal("neighbors", "--watch", "--interval", "0.02")) as terminal:
        terminal.until("noisy: 1, victims: 1")
        fake.reply = lambda _method, _path: (200, {"tenants": [], "next_cursor": None})
        terminal.until("noisy: 0, victims: 0")
        assert terminal.interrupted() == 0
    assert "Traceback" not in terminal.seen
