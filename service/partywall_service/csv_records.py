"""CSV, one record at a time (RFC 4180)."""

import csv
from collections.abc import Iterable, Iterator
from typing import TextIO


def records(text: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Every record that is not blank, or what is wrong with it, and the line it begins on.

    Args:
        text: opened with `newline=""`.
    """
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
    """Whether these cells, read with `errors="surrogateescape"`, were UTF-8."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True
