"""keys.py and include/keys.lua are twins, and every key is told of."""

import re

import pytest

from partywall.lua import LuaFile
from partywall_workers import keys
from partywall_workers.keys import Keys
from tests.unit.workers.lua import FOLDER, SCRIPTS

QUEUE = "pw:jobs"
KEYS = Keys(QUEUE)


def lua_name(function: str, *words: str) -> str:
    """What a function of include/keys.lua makes of its arguments: it only joins text."""
    source = (FOLDER / "include" / "keys.lua").read_text()
    found = re.search(rf"^local function {function}\((.*)\) return (.*) end$", source, re.MULTILINE)
    assert found, f"no function {function}"
    names = dict(zip(found[1].split(", "), words, strict=True)) | {"Q": QUEUE}
    made = ""
    for part in found[2].split(" .. "):
        if call := re.fullmatch(r"(\w+)\((.*)\)", part):
            made += lua_name(call[1], *(names[word] for word in call[2].split(", ")))
        else:
            made += part.strip("'") if part.startswith("'") else names[part]
    return made


@pytest.mark.parametrize(
    ("function", "ours"),
    [
        ("job_key", KEYS.job),
        ("arq_id", KEYS.arq_id),
        ("payload_key", KEYS.payload),
        ("result_key", KEYS.result),
        ("in_progress_key", KEYS.in_progress),
        ("of", KEYS.of),
    ],
)
def test_lua_and_python_name_a_key_alike(function, ours):
    assert lua_name(function, "acme", "a:1") == ours("acme", "a:1")


def test_they_agree_on_keys_there_is_one_of_and_on_arqs_flags():
    assert lua_name("one_of", "due") == KEYS.one("due") == "pw:jobs:due"
    assert f"local ABORT = '{keys.ABORT}'" in (FOLDER / "include" / "keys.lua").read_text()


def test_every_key_that_a_script_uses_is_told_of():
    told = set(re.findall(r"^\| `Q:([\w:]+?)(?::[A-Z]+)*`", keys.__doc__ or "", re.MULTILINE))
    used = set()
    for name in SCRIPTS:
        text = LuaFile(name, "partywall_workers").text
        used |= set(re.findall(r"\b(?:of|one_of)\('([\w:]+)'", text))
    assert used <= told


@pytest.mark.parametrize(
    ("arq_id", "parts"),
    [
        ("pw:jobs:acme:1f0c", ("acme", "1f0c")),
        ("pw:jobs:acme:a:b:c", ("acme", "a:b:c")),
        ("pw:jobs:_cron:daily:5", ("_cron", "daily:5")),
        ("pw:jobs:acme", None),
        ("other:jobs:acme:1", None),
        ("xpw:jobs:acme:1", None),
        ("1f0c", None),
        ("", None),
    ],
)
def test_an_id_of_arq_is_taken_apart(arq_id, parts):
    assert KEYS.parts(arq_id) == parts
    if parts:
        assert KEYS.arq_id(*parts) == arq_id


def test_the_queue_of_an_installation_is_named_by_its_prefix():
    assert keys.queue_name("pw") == keys.DEFAULT_QUEUE
    assert keys.queue_name("staging") == "staging:jobs"
