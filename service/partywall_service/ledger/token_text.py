"""What a token looks like: `pw_<id>_<secret>`.

The id finds the row, the secret proves the right to it. The secret is 32 random bytes, so nobody
can try them all and one SHA-256 is enough: a slow hash protects what people choose to remember.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

_SHAPE = re.compile(r"pw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class TokenText(NamedTuple):
    """The two parts of a token."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"pw_{self.id}_{self.secret}"

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret: all that is ever stored of it."""
        return hashlib.sha256(self.secret.encode()).digest()

    @classmethod
    def mint(cls) -> "TokenText":
        """A new token, from the operating system's randomness."""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> "TokenText | None":
        """The parts of a token; None for any text that cannot be one."""
        match = _SHAPE.fullmatch(text)
        return None if match is None else cls(match[1], match[2])
