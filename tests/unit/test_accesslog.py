"""Access logs as servers really write them."""

import gzip
import io
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from partywall_service.accesslog import LONGEST_LINE, Entry, LogError, open_log, parse_line

SAMPLE = Path(__file__).parents[1] / "data" / "access.log"
LINE = '192.0.2.1 - - [29/Mar/2026:03:00:00 +0200] "GET / HTTP/1.1" 200 512'
AT = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp())


def _lines(path: Path) -> list[str | None]:
    with open_log(str(path)) as log:
        return list(log)


def test_the_sample_holds_what_it_was_made_to_hold() -> None:
    entries = [parse_line(line) for line in SAMPLE.read_text().splitlines()]
    assert entries == [
        Entry("192.0.2.1", None, AT),
        Entry("192.0.2.1", None, AT + 1),
        Entry("2001:db8::7", "ada", AT + 2),
        Entry("::1", None, AT + 2),
        Entry("shop.example", '"frank smith"', AT + 3),
        Entry("192.0.2.1", None, AT + 3),
        Entry("192.0.2.9", None, AT + 4),
        Entry("192.0.2.9", None, AT + 4),
        Entry("192.0.2.9", None, AT + 5),
        None,  # blank
        None,  # prose
        None,  # the 31st of February
        None,  # the 25th hour
        Entry("192.0.2.1", None, AT - 1),
        Entry("192.0.2.1", "ada", AT + 6),
    ]


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        ("01/Jan/1970:00:00:00 +0000", 0),
        ("01/Jan/1970:00:00:00 -0130", 5400),
        ("01/Jan/1970:02:00:00 +0130", 1800),
        ("29/Feb/2024:12:34:56 +0000", 1709210096),
        ("31/Dec/2016:23:59:60 +0000", 1483228800),  # a leap second
    ],
)
def test_times_are_read_with_their_offset(stamp: str, at: int) -> None:
    assert parse_line(f'h - - [{stamp}] "GET /" 200 1') == Entry("h", None, at)


@pytest.mark.parametrize(
    "stamp",
    [
        "29/Feb/2023:00:00:00 +0000",
        "00/Jan/2023:00:00:00 +0000",
        "01/Mai/2023:00:00:00 +0000",
        "01/jan/2023:00:00:00 +0000",
        "01/Jan/1969:00:00:00 +0000",
        "01/Jan/2023:24:00:00 +0000",
        "01/Jan/2023:00:60:00 +0000",
        "01/Jan/2023:00:00:61 +0000",
        "01/Jan/2023:00:00:00 +2400",
        "01/Jan/2023:00:00:00 +0060",
        "01/Jan/2023:00:00:00",
        "\u0660\u0661/Jan/2023:00:00:00 +0000",  # digits, but not a server's
    ],
)
def test_a_time_that_is_none_makes_no_request(stamp: str) -> None:
    assert parse_line(f'h - - [{stamp}] "GET /" 200 1') is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        LINE[:-10],  # cut short in its request
        LINE.replace(" 200 ", " OK "),
        LINE + "kB",
        '{"time": "2026-03-29T03:00:00Z", "host": "192.0.2.1"}',
        f"<34>1 2026-03-29 relay {LINE}",
        f"shop.example:443 {LINE}",  # Apache's vhost_combined
        f"shop.example:443 {LINE}".replace("- - [", "- ada ["),
    ],
)
def test_what_is_neither_common_nor_combined_is_no_request(line: str) -> None:
    assert parse_line(line) is None


def test_a_client_cannot_choose_its_time_by_its_user_name() -> None:
    """Servers escape the quotes of what a client sent; only theirs follow a time."""
    name = r"ada [01/Jan/1999:00:00:00 +0000] \"GET /\" 200 1"
    assert parse_line(LINE.replace("- - [", f"- {name} [")) is None


def test_a_line_made_to_be_slow_is_not() -> None:
    """Each kind of repetition once: with backtracking, these would take hours."""
    for part in ("a ", "[", '"', '" 200 ', "\\", " [29/Mar/2026:03:00:00 +0200] "):
        parse_line(LINE[:60] + part * (LONGEST_LINE // len(part)))
        parse_line("h - " + part * (LONGEST_LINE // len(part)))


@pytest.mark.parametrize("name", ["access.log", "access.log.gz", "access.log.1", "-"])
def test_gzip_is_known_by_its_bytes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (SAMPLE.read_bytes(), gzip.compress(SAMPLE.read_bytes())):
        if name == "-":
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
            with open_log("-") as log:
                assert list(log) == SAMPLE.read_text().splitlines()
        else:
            (tmp_path / name).write_bytes(content)
            assert _lines(tmp_path / name) == SAMPLE.read_text().splitlines()


def test_logs_that_were_compressed_apart_and_joined_are_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "joined.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert _lines(path) == ["one", "two"]


def test_a_pipe_that_gives_one_byte_at_a_time_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for byte in gzip.compress(b"one\ntwo\n"):
                pipe.write(bytes([byte]))

    writer = threading.Thread(target=write)
    writer.start()
    assert _lines(path) == ["one", "two"]
    writer.join()


def test_lines_end_as_on_any_system_and_the_last_may_not(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\r\ntwo\n\nlast")
    assert _lines(path) == ["one", "two", "", "last"]


def test_an_empty_log_has_no_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    assert _lines(tmp_path / "log") == []


def test_bytes_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a\xff\na\xfe\n\xc3\xbc\n")
    assert _lines(tmp_path / "log") == ["a\\xff", "a\\xfe", "ü"]


@pytest.mark.parametrize("length", [LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE])
def test_an_endless_line_is_one_line_and_not_kept(tmp_path: Path, length: int) -> None:
    (tmp_path / "log").write_bytes(b"one\n" + b"x" * length + b"\ntwo\n" + b"x" * length)
    assert _lines(tmp_path / "log") == ["one", None, "two", None]


def test_reading_says_how_far_it_is(tmp_path: Path) -> None:
    content = gzip.compress(SAMPLE.read_bytes())
    (tmp_path / "log").write_bytes(content)
    with open_log(str(tmp_path / "log")) as log:
        assert (log.size, log.consumed) == (len(content), 0)
        list(log)
        assert log.consumed == len(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:10] + b"\xff" * 40 + whole[50:],
        lambda whole: whole[:-8] + bytes(8),
        lambda whole: whole + b"not gzip",
        lambda whole: whole[:2],
    ],
)
def test_broken_gzip_is_said_to_be(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(damage(gzip.compress(SAMPLE.read_bytes())))  # type: ignore[operator] # a lambda
    with pytest.raises(LogError, match=r"log\.gz is broken gzip"):
        _lines(path)


def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LogError, match="missing: No such file"):
        _lines(tmp_path / "missing")
    with pytest.raises(LogError, match="Is a directory"):
        _lines(tmp_path)
    with pytest.raises(LogError, match="cannot read"), open_log("a\0b"):
        pass
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(LogError, match="standard input"), open_log("-"):
        pass
