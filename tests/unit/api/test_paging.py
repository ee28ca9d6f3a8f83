"""Cursors: opaque, and of no use to a forger."""

import base64
import contextlib
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.api.paging import Cursor
from partywall_service.api.problems import Problem

_key = Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]
LETTERS: Cursor[str] = Cursor("letters", _key)
PAIRS: Cursor[tuple[str, str]] = Cursor("pairs", tuple[_key, _key])
NUMBERS: Cursor[int] = Cursor("numbers", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).rstrip(b"=").decode()


def test_a_cursor_gives_its_key_back() -> None:
    assert LETTERS.decode(LETTERS.encode("acme")) == "acme"
    assert PAIRS.decode(PAIRS.encode(("limits", "requests"))) == ("limits", "requests")
    assert NUMBERS.decode(NUMBERS.encode(2**63 - 1)) == 2**63 - 1


def test_no_cursor_is_the_first_page() -> None:
    assert LETTERS.decode(None) is None


def test_a_cursor_needs_no_escaping_in_a_url() -> None:
    assert all(c.isalnum() or c in "-_" for c in NUMBERS.encode(10**18))


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "!",
        "a",
        "acme",
        "é",
        "\x00",
        "\ud800",
        encoded("acme"),
        encoded(["letters"]),
        encoded(["letters", "acme", 1]),
        encoded(["letters", 7]),
        encoded(["letters", "with\x00nul"]),
        encoded(["pairs", "acme"]),
        base64.urlsafe_b64encode(b'["letters","\xff"]').decode(),
        base64.urlsafe_b64encode(b'["letters","acme"').decode(),
        "W" * 1000,
    ],
)
def test_a_forged_cursor_is_refused(forged: str) -> None:
    with pytest.raises(Problem) as caught:
        LETTERS.decode(forged)
    assert caught.value.slug == "invalid-request"
    assert caught.value.errors is not None
    assert [error["field"] for error in caught.value.errors] == ["cursor"]


@pytest.mark.parametrize("number", [0, -1, 2**63, 1.5, "1", True, None])
def test_a_number_that_no_column_holds_is_refused(number: object) -> None:
    with pytest.raises(Problem):
        NUMBERS.decode(encoded(["numbers", number]))


@given(st.text())
def test_no_text_makes_a_cursor_fail_otherwise(text: str) -> None:
    with contextlib.suppress(Problem):
        LETTERS.decode(text)


@pytest.mark.parametrize(("rows", "shown", "more"), [(0, 0, False), (2, 2, False), (3, 2, True)])
def test_the_row_too_many_only_says_that_there_is_more(rows: int, shown: int, more: bool) -> None:
    page, cursor = NUMBERS.page(list(range(1, rows + 1)), 2, lambda row: row)
    assert list(page) == list(range(1, shown + 1))
    assert (NUMBERS.decode(cursor) if cursor else None) == (2 if more else None)
