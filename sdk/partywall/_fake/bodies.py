"""How the fake sidecar reads a request's body."""

import re
from typing import TypeVar

import msgspec

from partywall._fake.refused import Refused

_MEMBER_FAULT = re.compile("Object (?:missing required|contains unknown) field `(.*)`")

T = TypeVar("T")


def read(body: bytes, kind: type[T]) -> T:
    """What a body says.

    Raises:
        Refused: it is not understood; with the field that is at fault.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise Refused("invalid-request", *_fault(str(exc), body)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refused("invalid-request", f"expected JSON: {exc}", "body") from exc


def _fault(said: str, body: bytes) -> tuple[str, str]:
    """What is wrong, and the field that msgspec says it of."""
    reason, at, path = said.rpartition(" - at `$")
    if not at:
        reason, path = said, ""
    names = [path.rstrip("`").lstrip(".")]
    if member := _MEMBER_FAULT.match(reason):
        names.append(member[1])
    if names == ["items[...]"]:  # msgspec names no keys
        names = ["items", _first_wrong(msgspec.json.decode(body)["items"])]
    return reason, ".".join(filter(None, names)) or "body"


def _first_wrong(items: dict[str, object]) -> str:
    """The first item that is no whole number from 1 to 2^53-1."""
    wrong = (
        name for name, amount in items.items() if type(amount) is not int or not 1 <= amount < 2**53
    )
    return next(wrong, "")  # a key may stand there twice, of which JSON keeps the last
