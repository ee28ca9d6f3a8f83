"""Walking a TOML document: what is wrong is noted with its place, and the walk goes on."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from partywall_service.names import is_name
from partywall_service.policy.errors import PolicyFault
from partywall_service.policy.values import expected_one_of, shown

T = TypeVar("T")
Table = Mapping[str, Any]


class Walk:
    """Gathers the faults of one document.

    Attributes:
        faults: in the order in which they were met.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.faults: list[PolicyFault] = []

    def fault(self, path: str, message: str) -> None:
        """Notes that what stands at `path` is wrong."""
        self.faults.append(PolicyFault(self._source, path, message))

    def value(self, path: str, value: object, read: Callable[[object], T]) -> T | None:
        """What `read` makes of a value; None, and a fault, where it raises ValueError."""
        try:
            return read(value)
        except ValueError as exc:
            self.fault(path, str(exc))
            return None

    def table(self, path: str, value: object) -> Table:
        """`value` as a table; an empty one, and a fault, where it is none."""
        if isinstance(value, dict):
            return value
        self.fault(path, f"expected a table, as [{path}]; got {shown(value)}")
        return {}

    def named(self, path: str, table: Table) -> Iterator[tuple[str, Any]]:
        """What stands under names (of tiers, limits, resources); a fault for what is no name."""
        for name, value in table.items():
            if is_name(name):
                yield name, value
            else:
                self.fault(
                    join(path, name),
                    "expected a name of 1 to 64 letters, digits, '.', '_' or '-', "
                    "beginning with a letter or digit",
                )

    def known_keys(self, path: str, table: Table, known: Collection[str]) -> None:
        """A fault for each key that is none of `known`."""
        for key in table:
            if key not in known:
                self.fault(join(path, key), f"unknown; {expected_one_of(known, key)}")


def join(path: str, name: str) -> str:
    """A table path as TOML writes it: what is no bare key is quoted, and stays on one line."""
    bare = name.replace("_", "").replace("-", "")
    if not (bare.isascii() and bare.isalnum()):
        # JSON and TOML escape alike; an endless key is cut, as the path is for people.
        text = name if len(name) <= 80 else f"{name[:79]}…"
        name = json.dumps(text, ensure_ascii=not text.isprintable())
    elif len(name) > 80:
        name = f"{name[:79]}…"
    return f"{path}.{name}" if path else name
