"""Tokens as text and in headers; what needs a ledger is in tests/servers/test_auth.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.api.auth import presented_token
from partywall_service.ledger.token_text import TokenText

OWN, AUTHORIZATION = b"x-partywall-token", b"authorization"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([(b"host", b"example")], None),
        ([(AUTHORIZATION, b"Bearer abc")], "abc"),
        ([(AUTHORIZATION, b"bEARER   abc \t")], "abc"),
        ([(AUTHORIZATION, b"  Bearer abc")], "abc"),
        ([(AUTHORIZATION, b"Bearer")], None),
        ([(AUTHORIZATION, b"Bearer  ")], None),
        ([(AUTHORIZATION, b"Bearerabc")], None),
        ([(AUTHORIZATION, b"Basic abc")], None),
        ([(AUTHORIZATION, b"abc")], None),
        ([(AUTHORIZATION, b"")], None),
        ([(AUTHORIZATION, b"Basic abc"), (AUTHORIZATION, b"Bearer abc")], "abc"),
        ([(OWN, b"abc")], "abc"),
        ([(OWN, b" abc\t")], "abc"),
        ([(OWN, b"")], None),
        ([(OWN, b" "), (AUTHORIZATION, b"Bearer abc")], "abc"),
        ([(AUTHORIZATION, b"Basic client"), (OWN, b"abc")], "abc"),
        ([(AUTHORIZATION, b"Bearer client"), (OWN, b"gateway")], "gateway"),
        ([(OWN, b"gateway"), (AUTHORIZATION, b"Bearer client")], "gateway"),
        ([(AUTHORIZATION, "Bearer clé".encode())], "clé"),
    ],
)
def test_a_token_is_read_from_either_header(
    headers: list[tuple[bytes, bytes]], token: str | None
) -> None:
    assert presented_token(headers) == token


@given(st.lists(st.tuples(st.sampled_from([OWN, AUTHORIZATION]), st.binary()), max_size=4))
def test_no_bytes_in_a_header_can_break_it(headers: list[tuple[bytes, bytes]]) -> None:
    token = presented_token(headers)
    assert token is None or token


def test_a_token_reads_back_as_it_was_made() -> None:
    made = TokenText.mint()
    assert TokenText.parse(str(made)) == made
    assert len(made.digest) == 32


def test_no_two_tokens_are_alike() -> None:
    assert len({str(TokenText.mint()) for _ in range(1000)}) == 1000


GOOD = f"pw_{'0a' * 6}_{'A_-9' * 10}xyz"


def test_the_shape_of_a_token() -> None:
    assert TokenText.parse(GOOD) == ("0a" * 6, "A_-9" * 10 + "xyz")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pw_",
        GOOD + "x",
        GOOD[:-1],
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        GOOD.replace("a", "g", 1),
        GOOD.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}", 1),
        GOOD[:-1] + "é",
        GOOD[:-1] + "\0",
        "pw_" + "\ud800" * 56,
    ],
)
def test_what_is_no_token_is_never_looked_up(text: str) -> None:
    assert TokenText.parse(text) is None
