"""Each Lua file says what it takes, and is called by one façade only."""

import re
from pathlib import Path

import pytest

import partywall_service.engine as package
from partywall_service.engine.base import SUB_BUCKETS, Check
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
def test_a_script_has_one_facade(name):
    callers = [path.name for path in FOLDER.glob("*.py") if f'Script("{name}")' in path.read_text()]
    assert len(callers) == 1


def test_the_script_and_the_reference_have_the_same_sub_buckets():
    assert re.search(rf"^local SUB_BUCKETS = {SUB_BUCKETS}$", Script("decide").text, re.MULTILINE)


def test_the_facade_encodes_as_the_header_says():
    """One plan for equal rates, one run of keys for one tenant's limit, four words to a check."""
    rates = (Rate(10, 1), Rate(100, 60))
    keys, args = DecideScript("pw")._encode(
        [
            Check("acme", "requests", rates, 2),
            Check("acme", "requests", rates, 3, dry_run=True),
            Check("beta", "exports", (Rate(5, 3600),)),
        ],
        now=7,
    )
    assert keys == [
        "pw:{s62}:acme:ring:requests:1",
        "pw:{s62}:acme:ring:requests:60",
        "pw:{s99}:beta:ring:exports:3600",
    ]
    assert args == [
        "7",
        "2 10 1000000 100 60000000 1 5 3600000000",
        "1 1 2 1 1 1 3 0 2 3 1 1",
    ]
