"""Quotas and resources as quotas.toml writes them, for the fake sidecar."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from partywall.errors import ConfigurationError
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.quotas.records import Period, Unit

THRESHOLDS = (80, 95, 100)
"""Percents whose crossing is told where a resource does not say others."""

MAX_THRESHOLDS = 10
MAX_PERCENT = 1000

_UNITS: Mapping[str, int] = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of a resource a tier gives: no limit is unlimited."""

    limit: int | None = None
    per: Period | None = None
    is_size: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """How a resource behaves in every tier."""

    durable: bool = True
    unit: Unit = "count"
    thresholds: tuple[int, ...] = THRESHOLDS


def read_allowance(path: str, written: object) -> Allowance:
    """A quota of a tier: an amount, or a table with `limit` and `per`.

    Raises:
        ConfigurationError: it is none.
    """
    per: Period | None = None
    amount = written
    if isinstance(written, Mapping):
        known_keys(path, written, ("limit", "per"))
        per = written.get("per")
        if per is not None and per not in get_args(Period):
            expected = ", ".join(get_args(Period))
            raise ConfigurationError(f"{path}.per: expected one of {expected}; got {per!r}")
        path, amount = f"{path}.limit", written.get("limit")
    if amount == "unlimited" or (type(amount) is int and amount == -1):
        return Allowance(None, per)
    limit = amount if type(amount) is int else _size(amount)
    if limit is None or not 0 <= limit <= MAX_AMOUNT:
        raise ConfigurationError(
            f'{path}: expected a whole number from 0, a size of whole bytes such as "10 GiB", or '
            f'"unlimited"; got {amount!r}'
        )
    return Allowance(limit, per, is_size=isinstance(amount, str))


def read_resource(path: str, written: object) -> Resource:
    """How a resource behaves: `durable`, `thresholds`.

    Raises:
        ConfigurationError: something in it cannot be.
    """
    table = table_of(path, written)
    known_keys(path, table, ("durable", "thresholds"))
    durable = table.get("durable", True)
    if not isinstance(durable, bool):
        raise ConfigurationError(f"{path}.durable: expected true or false; got {durable!r}")
    thresholds = table.get("thresholds", THRESHOLDS)
    if (
        not isinstance(thresholds, list | tuple)
        or len(thresholds) > MAX_THRESHOLDS
        or not all(type(one) is int and 1 <= one <= MAX_PERCENT for one in thresholds)
        or list(thresholds) != sorted(set(thresholds))
    ):
        raise ConfigurationError(
            f"{path}.thresholds: expected up to {MAX_THRESHOLDS} whole percents from 1 to "
            f"{MAX_PERCENT}, ascending; got {thresholds!r}"
        )
    return Resource(durable, thresholds=tuple(thresholds))


def table_of(path: str, value: object) -> Mapping[str, object]:
    """A table.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{path}: expected a table; got {value!r}")
    return value


def known_keys(path: str, table: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Refuses what a table does not have.

    Raises:
        ConfigurationError: there is such a key.
    """
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{path}: expected {', '.join(known)}; got {key!r}")


def valid_name(path: str, name: object) -> None:
    """Refuses what can be no limit's or resource's name.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(name, str) or not LIMIT_PATTERN.fullmatch(name):
        raise ConfigurationError(
            f"{path}: expected names of 1 to 64 letters, digits, '.', '_' or '-', the first a "
            f"letter or digit; got {name!r}"
        )


def _size(written: object) -> int | None:
    match = _SIZE.fullmatch(written) if isinstance(written, str) else None
    if match is None or match[2] not in _UNITS:
        return None
    whole, _, fraction = match[1].partition(".")
    size, rest = divmod(int(whole + fraction) * _UNITS[match[2]], 10 ** len(fraction))
    return None if rest else size  # a part of a byte is a mistake
