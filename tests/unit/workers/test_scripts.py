"""Each Lua file says what it takes, and its façade gives it that."""

import re
from typing import Any, NamedTuple

import pytest

from partywall.lua import LuaFile
from partywall_workers.policy import JobPolicy
from partywall_workers.scripts import NewJob, Outcome, Scripts
from partywall_workers.usage import COUNTS_KEPT
from tests.unit.workers.lua import FOLDER, SCRIPTS

JOB = NewJob("acme", "1", "work", b"{}", 5)
TRY = Outcome("acme:1", 7, "retry", ran=True)


class Takes(NamedTuple):
    """What a header says: single arguments, and how many follow for each thing."""

    single: int
    each: int


def header(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text().split("\n\n", 1)[0]


def takes(name: str) -> Takes:
    text = header(name)
    single = max(int(number) for number in re.findall(r"^-- ARGV\[(\d+)\] ", text, re.MULTILINE))
    many = re.search(r"^-- ARGV\[(\d+)\.\.\] (?:for each \w+ (\d+):)?", text, re.MULTILINE)
    if many is None:
        return Takes(single, 0)
    assert int(many[1]) == single + 1
    return Takes(single, int(many[2] or 1))


class Recorder:
    """A client that answers as Redis would, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: tuple[Any, ...] = ()

    async def execute_command(self, *words: Any) -> Any:
        self.asked = words
        return self.answer


# Of each script: a call of its façade with two of what it takes many of, and an answer.
CALLS: dict[str, tuple[Any, Any]] = {
    "backlog": (lambda scripts: scripts.backlog(["acme", "beta"]), None),
    "cancel": (lambda s: s.cancel("acme", "1", keep=1, result=b""), b"unknown"),
    "claim": (lambda s: s.claim(1, lease=1, keep=1, costs=b"{}", lanes=["a", "b"]), [-1]),
    "drop_owed": (lambda scripts: scripts.drop_owed("acme", 9), 0),
    "erase": (
        lambda s: s.erase("acme", most=1, stone=1, last=None, jobs=["1", "2"]),
        [0, b"0"],
    ),
    "forget": (
        lambda s: s.forget([("acme", 1, "jobs.started", 2), ("beta", 1, "jobs.started", 3)]),
        None,
    ),
    "enqueue": (lambda scripts: scripts.enqueue([JOB, JOB]), [[b"created", b"1", b"2"]] * 2),
    "pause": (lambda scripts: scripts.pause("acme", paused=True), b"done"),
    "policy": (lambda s: s.policy({"acme": JobPolicy(), "beta": JobPolicy()}), None),
    "purge": (lambda s: s.purge("acme", most=1, keep=1, last=None), [0, b"0"]),
    "release": (lambda scripts: scripts.release([TRY, TRY]), [1, 0]),
    "renew": (lambda scripts: scripts.renew(1, [("acme:1", 7), ("acme:2", 8)]), [1, 2]),
    "revive": (lambda scripts: scripts.revive("acme", "1"), [b"revived", b"0"]),
}
BACKLOG = [b"", b"default", b"1", 0, 0, 0, 0, b"0", b"", b"", 0, b"", b"0", b"0", b"0", b"0"]
CALLS["backlog"] = (CALLS["backlog"][0], [BACKLOG, BACKLOG])


def test_every_script_is_called_here():
    assert sorted(CALLS) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_opens_with_its_contract(name):
    assert all(line.startswith("--") for line in header(name).splitlines())
    for part in ("KEYS[1]", "ARGV[1]"):
        assert part in header(name), f"{name}.lua does not say its {part}"
    answers = re.search(r"^return \S+", LuaFile(name, "partywall_workers").text, re.MULTILINE)
    assert ("returns" in header(name)) == (answers is not None)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_facade_gives_as_many_arguments_as_the_header_says(name):
    call, answer = CALLS[name]
    client = Recorder(answer)
    await call(Scripts(client, "pw:jobs", now=5))
    single, each = takes(name)
    command, sha, keys, queue, *argv = client.asked
    assert (command, sha) == ("EVALSHA", LuaFile(name, "partywall_workers").sha)
    assert (keys, queue, argv[0]) == (1, "pw:jobs", 5)
    assert len(argv) == single + 2 * each


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_steps_through_its_arguments_as_its_header_says(name):
    body = (FOLDER / f"{name}.lua").read_text()
    steps = re.findall(r"for at = (\d+), #ARGV(?:, (\d+))? do", body)
    single, each = takes(name)
    assert {(int(first), int(step or 1)) for first, step in steps} <= {(single + 1, each)}
    assert bool(steps) == bool(each)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_parts_that_are_there(name):
    assert "@include" not in LuaFile(name, "partywall_workers").text


def test_every_part_is_included_by_a_script():
    included = "".join(LuaFile(name, "partywall_workers").text for name in SCRIPTS)
    for part in (FOLDER / "include").glob("*.lua"):
        assert part.read_text() in included


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_facade(name):
    facade = (FOLDER.parent / "scripts.py").read_text()
    assert len(re.findall(rf"_call\(_{name}[,)]", facade)) == 1


def test_scripts_and_readers_give_counts_up_after_the_same_time():
    text = (FOLDER / "include" / "usage.lua").read_text()
    (days,) = re.findall(r"^local COUNTS_KEPT = (\d+) \* 86400 ", text, re.MULTILINE)
    assert int(days) * 86400 == COUNTS_KEPT


@pytest.mark.parametrize(
    ("of", "how"),
    [
        ({"how": "succeeded"}, "succeeded"),
        ({"how": "retry"}, "retry"),
        ({"how": "retry", "uncounted": True, "refused": True}, "retryur"),
        ({"how": "retry", "consumed": True, "ran": True}, "retrycs"),
        ({"how": "failed", "uncounted": True, "refused": True}, "failed"),
    ],
)
def test_an_outcome_says_in_letters_what_a_next_try_must_know(of, how):
    assert Outcome("acme:1", 7, **of).words()[2] == how
