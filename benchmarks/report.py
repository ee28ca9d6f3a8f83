"""What was measured, as a table for a person and a file for a program."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Row:
    """One line: ours, a peer's, their ratio, and what the ratio should be.

    Attributes:
        what: what was measured, with its unit.
        ours: our figure.
        peer: the named peer's figure, or the limit's.
        beside: the peer's name.
        ratio: ours to the peer's.
        wanted: what the ratio should be, as text such as ">= 0.40"; empty when only printed.
    """

    what: str
    ours: float
    peer: float
    beside: str
    ratio: float
    wanted: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the ratio is as wanted; None when nothing was."""
        if not self.wanted:
            return None
        relation, limit = self.wanted.split()
        return self.ratio >= float(limit) if relation == ">=" else self.ratio <= float(limit)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| measured | Partywall | peer | beside | ratio | wanted | |",
        "| --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    marks = {True: "held", False: "MISSED", None: ""}
    lines += [
        f"| {row.what} | {row.ours:,.6g} | {row.peer:,.6g} | {row.beside} | {row.ratio:.2f} "
        f"| {row.wanted} | {marks[row.held]} |"
        for row in rows
    ]
    return "\n".join(lines)


def write(rows: list[Row]) -> None:
    """Writes `benchmarks/results.json`."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        "rows": [asdict(row) | {"held": row.held} for row in rows],
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
