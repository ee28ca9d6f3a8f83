"""Pages of a list.

The next page begins after the last key of this one, so nothing is skipped or repeated however the
list changes meanwhile.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from partywall_service.api.problems import Problem, invalid

Key = TypeVar("Key")
Row = TypeVar("Row")


class Cursor(Generic[Key]):
    """The cursors of one list: a key as base64url JSON, opaque to clients.

    It is neither signed nor secret. A forged one is held to the key's type, and can then name no
    more than another place in a list that its bearer may read anyway.

    Args:
        name: the list's; the cursor of another list is refused.
        key: the key's type as msgspec reads it, so strict that any value of it can be stored.
    """

    def __init__(self, name: str, key: Any) -> None:  # noqa: ANN401 - a type form has no type yet
        self._name = name
        self._decoder: msgspec.json.Decoder[tuple[str, Key]] = msgspec.json.Decoder(tuple[str, key])

    def encode(self, key: Key) -> str:
        """The cursor of the page that begins after `key`."""
        raw = msgspec.json.encode((self._name, key))
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def decode(self, cursor: str | None) -> Key | None:
        """The key, or None for the first page.

        Raises:
            Problem: `invalid-request` for what this list never gave.
        """
        if cursor is None:
            return None
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            name, key = self._decoder.decode(base64.b64decode(padded, b"-_", validate=True))
        except (ValueError, msgspec.MsgspecError) as exc:
            raise _forged() from exc
        if name != self._name:
            raise _forged()
        return key

    def page(
        self, rows: Sequence[Row], size: int, key: Callable[[Row], Key]
    ) -> tuple[Sequence[Row], str | None]:
        """The page and its `next_cursor`, from up to `size + 1` rows.

        The row too many is not shown: it only tells that there is another page.
        """
        if len(rows) <= size:
            return rows, None
        return rows[:size], self.encode(key(rows[size - 1]))


def _forged() -> Problem:
    return invalid("cursor", "expected the next_cursor of an earlier page of this list")
