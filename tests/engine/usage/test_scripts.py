"""The scripts of usage say what they take, and agree with what calls them."""

import re
from pathlib import Path

import pytest

import partywall_service.usage as package
from partywall.lua import LuaFile
from partywall_service.engine.scripts import Script
from partywall_service.usage.reported import OLDEST

FOLDER = Path(package.__file__).parent
SCRIPTS = sorted(path.stem for path in (FOLDER / "lua").glob("*.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name):
    text = Script(name, package.__name__).text
    header = text.split("\n\n", 1)[0]
    assert all(line.startswith("--") for line in header.splitlines())
    for part in ("KEYS[", "ARGV[1", "returns"):
        assert part in header, f"{name}.lua does not say its {part}"
    assert "@include" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_facade(name):
    call = f'Script("{name}", __package__)'
    callers = [path.name for path in FOLDER.glob("*.py") if call in path.read_text()]
    assert callers == ["scripts.py"]


def test_decisions_and_reports_are_counted_by_the_same_lines():
    part = (FOLDER.parent / "engine" / "lua" / "include" / "usage.lua").read_text()
    for text in (
        LuaFile("decide", "partywall_service.engine").text,
        Script("add", package.__name__).text,
    ):
        assert part in text


@pytest.mark.parametrize(
    ("script", "constant"), [("add", "NUMBER_KEPT"), ("forget", "ROLLED_KEPT")]
)
def test_what_is_remembered_lasts_as_long_as_what_it_guards(script, constant):
    def seconds(text, name):
        (product,) = re.findall(rf"^local {name} = (\d+(?: \* \d+)?)", text, re.MULTILINE)
        first, _, second = product.partition(" * ")
        return int(first) * int(second or 1)

    text = Script(script, package.__name__).text
    counts_kept = seconds(Script("add", package.__name__).text, "COUNTS_KEPT")
    assert seconds(text, constant) == {"NUMBER_KEPT": OLDEST, "ROLLED_KEPT": counts_kept}[constant]
