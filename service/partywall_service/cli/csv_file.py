"""CSV files as commands read them, one record at a time (RFC 4180)."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from partywall_service.cli.errors import CliError


@contextmanager
def opened(file: str) -> Iterator[TextIO]:
    """The file's text. Bytes that are not UTF-8 come as lone surrogates, for each to be told."""
    if file != "-":
        with Path(file).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text
        return
    if sys.stdin is None:
        raise CliError("cannot read standard input: it is closed")
    piped = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", "surrogateescape", newline="")
    try:
        yield piped
    finally:
        piped.detach()  # else it would close what is not ours


def records(text: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Every record that is not blank, or what is wrong with it, and the line it begins on."""
    reader = csv.reader(text, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as exc:
            yield line, exc
        else:
            if any(cells):
                yield line, cells


def is_utf8(cells: Iterable[str]) -> bool:
    """Whether the file's bytes were UTF-8 where these cells were read; see `opened`."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True
