"""Which amounts of which resources a call names: checked here, before anything is sent."""

from collections.abc import Mapping
from typing import TypeVar

from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT
from partywall.records import invalid, name_of

MAX_TTL = 86_400
"""Seconds that a reservation may be held."""

T = TypeVar("T")


def merged(given: Mapping[str, T] | None, named: Mapping[str, T], *, at: str) -> dict[str, T]:
    """What a call got as a mapping and by name.

    Raises:
        InvalidRequest: there is none, a name can be none, or one is there twice.
    """
    if given is not None and not isinstance(given, Mapping):
        raise invalid(at, "expected a mapping of resources", given)
    together: dict[str, T] = {**(given or {}), **named}
    if not together:
        raise invalid(at, "expected at least one resource", together)
    for name in together:
        valid_resource(name, at=at)
        if given is not None and name in given and name in named:
            raise invalid(f"{at}.{name}", "expected each resource once", f"{name}, twice")
    return together


def amounts_of(given: Mapping[str, int] | None, named: Mapping[str, int]) -> dict[str, int]:
    """The amounts that a call names, each a whole number from 1.

    Raises:
        InvalidRequest: as above, or an amount can be none; with the field `items.<resource>`.
    """
    items = merged(given, named, at="items")
    for name, amount in items.items():
        if not is_whole(amount, 1, MAX_AMOUNT):
            raise invalid(
                f"items.{name}", f"expected a whole number from 1 to {MAX_AMOUNT}", amount
            )
    return items


def is_whole(value: object, least: int, most: int) -> bool:
    """Whether it is a whole number within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def valid_resource(resource: str, *, at: str = "resource") -> None:
    """Refuses what can be no resource's name.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(resource, str) or LIMIT_PATTERN.fullmatch(resource) is None:
        raise invalid(at, name_of(64, "a resource's name"), resource)


def valid_level(used: int, *, at: str = "used") -> None:
    """Refuses what can be no level.

    Raises:
        InvalidRequest: it is none.
    """
    if not is_whole(used, 0, MAX_AMOUNT):
        raise invalid(at, f"expected a whole number from 0 to {MAX_AMOUNT}", used)


def valid_ttl(ttl: int) -> None:
    """Refuses what can be no time to hold a reservation.

    Raises:
        InvalidRequest: it is none.
    """
    if not is_whole(ttl, 1, MAX_TTL):
        raise invalid("ttl", f"expected whole seconds from 1 to {MAX_TTL}", ttl)
