"""The scripts of quotas say what they take, and agree with what calls them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import partywall_service.quotas as package
from partywall.quotas.periods import period_end, period_start
from partywall_service.engine.scripts import Script
from partywall_service.quotas.instants import Calendar, instant
from partywall_service.quotas.model import Consume, Operation, Reserve, Settle, Terms
from partywall_service.quotas.script import Read, _Batch
from partywall_service.quotas.store import KEPT_SETTLED

FOLDER = Path(package.__file__).parent
SCRIPTS = sorted(path.stem for path in (FOLDER / "lua").glob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name):
    text = Script(name, package.__name__).text
    header = text.split("\n\n", 1)[0]
    assert all(line.startswith("--") for line in header.splitlines())
    for part in ("KEYS[", "ARGV[", "returns"):
        assert part in header, f"{name}.lua does not say its {part}"
    assert "@include" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_facade(name):
    call = f'Script("{name}", __package__)'
    callers = [path.name for path in FOLDER.glob("*.py") if call in path.read_text()]
    assert len(callers) == 1


def test_every_part_is_included_by_a_script():
    included = "".join(Script(name, package.__name__).text for name in SCRIPTS)
    for part in (FOLDER / "lua" / "include").glob("*.lua"):
        assert part.read_text() in included


def test_settled_reservations_are_kept_as_long_as_those_of_postgresql():
    text = Script("volatile", package.__name__).text
    days = re.search(r"^local SETTLED_KEPT = (\d+) \* DAY$", text, re.MULTILINE)
    assert int(days[1]) == KEPT_SETTLED.days


def test_the_facade_encodes_as_the_header_says():
    """Keys of one tenant stand once; unlimited ends where numbers do."""
    terms = {"users": Terms(5), "e-mails": Terms(None, "month")}

    def operation(what, key=None, **more):
        return Operation("acme", what, terms, "POST:k", b"\x01\xff", "me", key, **more)

    batch = _Batch(
        "pw",
        [
            operation(Consume({"e-mails": 3, "users": 1})),
            operation(Reserve({"users": 2}, "v1", 60), "k", kept=True),
            operation(Settle("v1", "committed", {"users": 1})),
            Read("acme", terms),
        ],
    )
    assert batch.keys == [
        "pw:{s62}:acme:quota:levels",
        "pw:{s62}:acme:quota:holds",
        "pw:{s62}:acme:quota:reservation:v1",
        "pw:{s62}:acme:quota:answer:POST:k",
        "pw:{s62}:acme:quota:reservation:v1",
    ]
    most = 2**53 - 1
    consume, reserve, settle, look = batch.operations
    items = [("e-mails", 3, most, 3), ("users", 0, 5, 1)]
    assert consume == ("consume", 2, 3, 0, 0, "", items, 0, "", "", 0, False)
    context = reserve[9]
    life = 48 * 3600 * 1000
    assert reserve == (
        *("reserve", 2, 3, 4, 5, "v1", [("users", 0, 5, 2)], 60_000_000, "01ff", context),
        *(life, True),
    )
    assert '"v1"' in context
    assert settle[:8] == (
        *("commit", 2, 3, 6, 0, "v1"),
        [("users", 0, 5, 0), ("e-mails", 3, most, 0)],
        [("users", 1)],
    )
    assert look[:3] == ("look", 2, 3)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis takes naive bounds and adds the zone
def test_a_calendar_learns_another_clocks_periods(moment):
    calendar = Calendar(lambda: 0.0)
    calendar.learn((moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1))
    day, tomorrow, week, month = (instant(int(edge)) for edge in calendar.guess().split())
    assert [day, week, month] == [period_start(per, moment) for per in ("day", "week", "month")]
    assert tomorrow == period_end("day", day)
