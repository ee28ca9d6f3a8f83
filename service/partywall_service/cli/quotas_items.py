"""`RESOURCE=AMOUNT`, as commands on quotas take it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from partywall_service.cli.errors import CliError, UsageError
from partywall_service.names import is_name
from partywall_service.policy.amounts import parse_amount
from partywall_service.policy.values import shown

_VERSION = re.compile(r"[0-9]{1,16}")


class Item(NamedTuple):
    """An amount of a resource.

    Attributes:
        resource: which.
        amount: in its own units.
        text: as it was written.
        is_size: whether it was written with a unit of bytes.
        version: of the quota, where one was written.
    """

    resource: str
    amount: int
    text: str
    is_size: bool
    version: int | None = None


def parse_items(texts: Sequence[str], *, least: int, versions: bool = False) -> list[Item]:
    """The items that the command line names.

    Args:
        texts: each as `users=1`.
        least: the smallest amount.
        versions: whether `users=1@17` names a version.

    Raises:
        UsageError: with what was expected.
    """
    items: dict[str, Item] = {}
    for text in texts:
        item = _parse_item(text, least, versions)
        if item.resource in items:
            raise UsageError(f"expected {item.resource} once; got it twice")
        items[item.resource] = item
    return list(items.values())


def parse_level(resource: str, text: str, version: str | None, *, least: int) -> Item:
    """An item of its parts.

    Args:
        resource: which.
        text: the amount: a whole number or a size.
        version: a whole number, or None.
        least: the smallest amount.

    Raises:
        ValueError: with what was expected.
    """
    if not is_name(resource):
        raise ValueError(f"expected a resource's name; got {shown(resource)}")
    if version is not None and _VERSION.fullmatch(version) is None:
        raise ValueError(f"{resource}: expected a version, a whole number; got {shown(version)}")
    is_size = re.fullmatch(r"[0-9]{1,16}", text) is None
    try:
        amount = parse_amount(text if is_size else int(text))
    except ValueError:  # it speaks of quotas.toml, where "unlimited" is an amount, too
        amount = None
    if amount is None or amount < least:
        raise ValueError(
            f"{resource}: expected a whole number from {least} to 2^53-1, or a size in B, kB, MB, "
            f"GB, TB, KiB, MiB, GiB or TiB; got {shown(text)}"
        )
    return Item(resource, amount, text, is_size, None if version is None else int(version))


def check_units(items: Iterable[Item], units: Mapping[str, str]) -> None:
    """Refuses a size of what is counted; a resource that `units` has not is for others to tell.

    Raises:
        CliError: with what was expected.
    """
    for item in items:
        if said := unit_fault(item, units):
            raise CliError(said)


def unit_fault(item: Item, units: Mapping[str, str]) -> str | None:
    """What is wrong with a size of a resource that is counted."""
    if not item.is_size or units.get(item.resource, "bytes") == "bytes":
        return None
    return (
        f"{item.resource}: expected a whole number, as it is not measured in bytes; "
        f"got {shown(item.text)}"
    )


def _parse_item(text: str, least: int, versions: bool) -> Item:
    resource, separator, rest = text.partition("=")
    if not separator:
        raise UsageError(
            f"expected RESOURCE=AMOUNT, such as users=1 or storage=1GiB; got {shown(text)}"
        )
    amount, at, version = rest.partition("@") if versions else (rest, "", "")
    try:
        return parse_level(
            resource.strip(), amount.strip(), version.strip() if at else None, least=least
        )
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
