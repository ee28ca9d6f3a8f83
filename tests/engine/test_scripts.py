"""Each Lua file says what it takes, and is called by one façade only."""

import re
from pathlib import Path

import pytest

import partywall_service.engine as package
from partywall_service.engine import base
from partywall_service.engine.base import Ask, Check, Count, Return
from partywall_service.engine.scripts import DecideScript, Script
from partywall_service.policy.model import Rate

FOLDER = Path(package.__file__).parent
SCRIPTS = sorted(path.stem for path in (FOLDER / "lua").glob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name):
    header = Script(name).text.split("\n\n", 1)[0]
    assert all(line.startswith("--") for line in header.splitlines())
    for part in ("KEYS[", "ARGV[1]", "returns"):
        assert part in header, f"{name}.lua does not say its {part}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_parts_that_are_there(name):
    assert "@include" not in Script(name).text


def test_every_part_is_included_by_a_script():
    included = "".join(Script(name).text for name in SCRIPTS)
    for part in (FOLDER / "lua" / "include").glob("*.lua"):
        assert part.read_text() in included


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_facade(name):
    callers = [path.name for path in FOLDER.glob("*.py") if f'Script("{name}")' in path.read_text()]
    assert len(callers) == 1


@pytest.mark.parametrize("name", ["SUB_BUCKETS", "AHEAD", "AHEAD_SHARE", "LEASE_KEPT"])
def test_the_script_and_the_reference_have_the_same_numbers(name):
    number = getattr(base, name)
    assert re.search(rf"^local {name} = {number}$", Script("decide").text, re.MULTILINE)


def test_the_facade_encodes_as_the_header_says():
    """One plan for equal rates, one run of keys for one tenant's limit, a key for each lease."""
    rates = (Rate(10, 1), Rate(100, 60))
    keys, args = DecideScript("pw")._encode(
        [
            Check("acme", "requests", rates, 2),
            Check("acme", "requests", rates, 3, dry_run=True),
            Check("beta", "exports", (Rate(5, 3600),)),
            Ask("acme", "requests", rates, 1, 4, 20, "a-1", within=25_000),
            Ask("beta", "exports", (Rate(5, 3600),), 2, 3),
            Return("acme", "requests", rates, "a-0", 7),
            Check("beta", "exports", (Rate(5, 3600),), enforce=False),
            Count("acme", "imports", (), "denied"),
        ],
        now=7,
    )
    assert keys == [
        "pw:{s62}:acme:window:requests:1",
        "pw:{s62}:acme:window:requests:60",
        "pw:{s62}:acme:usage",
        "pw:{s99}:beta:window:exports:3600",
        "pw:{s99}:beta:usage",
        "pw:{s62}:acme:lease:requests:a-1",
        "pw:{s62}:acme:lease:requests:a-0",
    ]
    assert args == [
        "7",
        "2 50000 10 1000000 100 60000000 1 500000 5 3600000000 1 500000 5 3600000000 0 0",
        (
            "1 1 2 1 3 1 1 3 0 2 4 1 1 5 1 1 1 2 4 20 25000 6 2 4 2 2 3 0 500000 0 1 1 7 3 7"
            " 3 4 1 1 5 4 8 1 5 3"
        ),
        (
            "limits.requests. denied limits.exports. denied limits.exports. would_deny"
            " limits.imports. denied"
        ),
    ]


def test_without_metering_the_facade_names_no_key_of_usage():
    keys, args = DecideScript("pw", metering=False)._encode(
        [Check("acme", "requests", (Rate(10, 1),))], now=None
    )
    assert keys == ["pw:{s62}:acme:window:requests:1"]
    assert args[2] == "1 1 1 1 0"
