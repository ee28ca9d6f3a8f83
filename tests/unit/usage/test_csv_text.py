"""CSV that a spreadsheet opens as what it says."""

import csv
import io
from datetime import UTC, datetime, timedelta, timezone

import pytest

from partywall_service.usage.csv_text import lines


def test_rows_are_lines_that_any_reader_of_csv_reads_back() -> None:
    rows = [("tenant", "name"), ("acme", 'a "quoted", long\nname'), ("ümlaut", "日本")]
    text = lines(rows)
    assert text.startswith("tenant,name\r\nacme,")
    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == rows


def test_values_are_said_as_answers_say_them() -> None:
    moment = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=1)))
    assert lines([(None, 7, -1.5, moment, ["a", "b"], [])]) == (
        ",7,-1.5,2026-11-21T11:00:00Z,a b,\r\n"
    )
    assert lines([(datetime(2026, 1, 1, 0, 0, 0, 5, UTC),)]) == "2026-01-01T00:00:00.000005Z\r\n"


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(begins: str) -> None:
    for value in (f"{begins}cmd()", [f"{begins}cmd()", "b"]):
        ((cell,),) = csv.reader(io.StringIO(lines([(value,)]), newline=""))
        assert cell.startswith(f"'{begins}cmd()")


@pytest.mark.parametrize("harmless", ["a=1", "1-2", "'=1", "", " =1", "x@y"])
def test_other_text_is_as_it_was(harmless: str) -> None:
    ((cell, _),) = csv.reader(io.StringIO(lines([(harmless, 1)]), newline=""))
    assert cell == harmless
