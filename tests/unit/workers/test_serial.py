"""Jobs and results as JSON: whole both ways, or refused with the place."""

import asyncio
import math
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import pytest
from arq.jobs import SerializationError
from hypothesis import given
from hypothesis import strategies as st

from partywall_workers.errors import InvalidJob, NotJson
from partywall_workers.serial import MAX_DEPTH, RemoteFailure, dumps, loads, sendable

text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


def job(args: Any = (), kwargs: Any = None) -> dict[str, Any]:
    return {"t": None, "f": "work", "a": args, "k": kwargs or {}, "et": 1}


def outcome(result: object, *, success: bool) -> dict[str, Any]:
    return job() | {"s": success, "r": result, "st": 1, "ft": 2, "q": "q", "id": "i"}


def failure(error: BaseException) -> BaseException:
    """What a handle raises for what a job raised."""
    raised = loads(dumps(outcome(error, success=False)))["r"]
    assert isinstance(raised, BaseException)
    return raised


@given(args=st.lists(json_values, max_size=3), kwargs=st.dictionaries(text, json_values))
def test_arguments_come_out_as_they_went_in(args, kwargs):
    assert loads(dumps(job(args, kwargs))) == job(args, kwargs)


@given(result=json_values)
def test_so_do_results(result):
    assert loads(dumps(outcome(result, success=True)))["r"] == result


def test_tuples_come_out_as_lists():
    assert loads(dumps(job((1, (2, "x")))))["a"] == [1, [2, "x"]]


def test_what_looks_like_an_error_is_a_result_if_the_job_succeeded():
    result = {"__error__": {"module": "builtins", "name": "ValueError", "args": [], "text": ""}}
    assert loads(dumps(outcome(result, success=True)))["r"] == result


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ([b"bytes"], {}, "args[0]"),
        ([1, {"at": [datetime.now(UTC)]}], {}, "args[1].at[0]"),
        ([], {"to": {1, 2}}, "kwargs.to"),
        ([math.nan], {}, "args[0]"),
        ([], {"x": [math.inf]}, "kwargs.x[0]"),
        ([{1: "key"}], {}, "args[0]"),
        ([{"\ud800": 1}], {}, "args[0]"),
        (["\udcff"], {}, "args[0]"),
        ([object()], {}, "args[0]"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_its_place(args, kwargs, place):
    with pytest.raises(NotJson) as refused:
        dumps(job(args, kwargs))
    assert refused.value.field == place
    assert isinstance(refused.value, InvalidJob)
    assert isinstance(refused.value, SerializationError), "as arq's callers expect"


def test_a_result_json_cannot_carry_is_refused_likewise():
    with pytest.raises(NotJson, match=r"result\.at: .*object"):
        dumps(outcome({"at": object()}, success=True))
    with pytest.raises(NotJson, match=r"result: .*ValueError"):
        dumps(outcome(ValueError("an error is no result"), success=True))


def test_values_nest_as_deep_as_is_said_and_no_deeper():
    nested: Any = []
    for _ in range(MAX_DEPTH - 1):
        nested = [nested]
    assert loads(dumps(job([nested])))["a"] == [nested]
    with pytest.raises(NotJson, match=f"at most {MAX_DEPTH} deep"):
        dumps(job([[nested]]))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotJson, match="deep"):
        dumps(job([loop]))


def test_subclasses_of_what_json_has_come_out_plain():
    assert loads(dumps(job([OrderedDict(a=1)])))["a"] == [{"a": 1}]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 3, ["x"]),
        KeyError("key"),
        asyncio.CancelledError(),
        TimeoutError(),
        OSError(2, "none here"),
        SerializationError("unable"),
    ],
)
def test_an_error_of_a_known_class_comes_out_as_itself(error):
    raised = failure(error)
    assert type(raised) is type(error)
    assert raised.args == error.args


class Picky(Exception):
    """Takes no arguments of `args`' kind."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class Unprintable:
    def __repr__(self) -> str:
        return "<unprintable>"


def test_an_error_that_cannot_be_made_anew_says_its_type_and_message():
    class Local(Exception):
        pass

    for error in (Picky(code=7), Local("code 7")):
        raised = failure(error)
        assert isinstance(raised, RemoteFailure)
        assert str(raised).endswith(f"{type(error).__name__}: code 7")


def test_an_error_with_arguments_json_cannot_carry_shows_them():
    assert failure(ValueError(Unprintable(), "x")).args == ("<unprintable>", "x")
    assert failure(ValueError("\udcff")).args == (repr("\udcff"),)


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "print", "NoSuchError"])
def test_a_result_cannot_make_what_is_no_exception_of_a_job(name):
    named = {"module": "builtins", "name": name, "args": ["x"], "text": "x"}
    raised = loads(dumps(outcome({"__error__": named}, success=False)))["r"]
    assert type(raised) is RemoteFailure
    assert str(raised) == f"{name}: x"


def test_a_result_does_not_choose_what_is_imported():
    import sys

    assert "antigravity" not in sys.modules
    named = {"module": "antigravity", "name": "Error", "args": [], "text": ""}
    raised = loads(dumps(outcome({"__error__": named}, success=False)))["r"]
    assert str(raised) == "Error"
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("text", [b"", b"not json", b"[]", b"3", b"\x80\x04pickle"])
def test_what_is_no_job_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, and ours
        loads(text)


def test_sendable_text_is_left_alone_and_other_text_written_out():
    assert sendable("grün") == "grün"
    assert sendable("a\udcffb") == "a\\udcffb"
