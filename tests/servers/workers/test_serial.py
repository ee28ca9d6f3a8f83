"""Jobs and results as JSON."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_workers import NotJson, RemoteFailure
from partywall_workers.serial import MAX_DEPTH, dumps, loads, sendable

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


class Outer:
    class Inner(Exception):
        pass


class Two(Exception):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(first, second)


def raised(error: BaseException) -> Any:
    """It, as it comes out at a client."""
    return loads(dumps({"f": "x", "s": False, "r": error}))["r"]


@given(JSON)
def test_what_json_carries_comes_back_as_it_was(value: Any) -> None:
    data = {"a": [value], "k": {"": value}, "r": value, "s": True}
    assert loads(dumps(data)) == data


def test_a_tuple_comes_back_as_a_list() -> None:
    assert loads(dumps({"a": (1, (2,))}))["a"] == [1, [2]]


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_a_result_is_at_most_a_hundred_levels_deep(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    if depth > MAX_DEPTH:
        with pytest.raises(NotJson, match="at most 100 deep"):
            dumps({"r": value})
    else:
        assert loads(dumps({"r": value}))["r"] == value


def test_what_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(NotJson, match="at most 100 deep"):
        dumps({"a": [circle]})


@pytest.mark.parametrize(
    "error",
    [ValueError("x", 1), KeyError("k"), asyncio.CancelledError(), TimeoutError(), Two("a", 2)],
)
def test_an_error_of_a_known_class_comes_back_as_it_was(error: BaseException) -> None:
    back = raised(error)
    assert type(back) is type(error)
    assert back.args == error.args


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt("x"), Outer.Inner("x"), GeneratorExit()],
)
def test_an_error_that_a_client_must_not_or_cannot_raise_comes_back_as_text(
    error: BaseException,
) -> None:
    back = raised(error)
    assert isinstance(back, RemoteFailure)
    assert str(back).startswith(type(error).__qualname__)


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("not.imported", "Error"), ("subprocess", "Popen")],
)
def test_a_result_chooses_no_other_code_that_is_run(module: str, name: str) -> None:
    named = {"module": module, "name": name, "args": ["exit 3"], "text": "x"}
    text = json.dumps({"s": False, "r": {"__error__": named}}).encode()
    assert isinstance(loads(text)["r"], RemoteFailure)


def test_a_result_that_looks_like_an_error_is_none() -> None:
    looks = {"__error__": {"module": "builtins", "name": "ValueError", "args": [], "text": ""}}
    assert loads(dumps({"s": True, "r": looks}))["r"] == looks


def test_an_error_returned_is_no_error_raised() -> None:
    with pytest.raises(NotJson, match="got ValueError"):
        dumps({"s": True, "r": ValueError("x")})


def test_what_an_error_quotes_is_told_as_far_as_json_carries_it() -> None:
    back = raised(LookupError(object, "\udcff", 1))
    assert back.args == (repr(object), repr("\udcff"), 1)


@given(st.text())
def test_any_text_can_be_sent(text: str) -> None:
    assert sendable(text).encode().decode() == sendable(text)


@pytest.mark.parametrize("text", [b"[]", b"5", b"null", b"", b"\x80"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)
