"""CSV files as commands open them."""

import io
import sys
from collections.abc import Iterator
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
