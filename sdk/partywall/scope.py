"""Reading an ASGI scope (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

import re
from collections.abc import MutableMapping
from typing import Any

from partywall.errors import TenantConflict

Scope = MutableMapping[str, Any]
"""An ASGI connection scope; whoever resolves a tenant only reads it."""

_PORT = re.compile(r":[0-9]*\Z")


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header's value without surrounding blanks, or None when it is absent or empty.

    Args:
        scope: of an `http` or `websocket` connection.
        name: in lower case.

    Raises:
        TenantConflict: it was sent twice with different values, so that which one counts would
            depend on who reads it.
    """
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            text: bytes = value.strip(b" \t")
            if not text:
                continue
            if found is not None and text != found:
                raise TenantConflict(f"the header {name.decode()} was sent twice, and differs")
            found = text
    return found


def host(scope: Scope, name: bytes = b"host") -> str | None:
    """The host that was asked for: lower case, without port and trailing dot; None without one."""
    value = header(scope, name)
    if value is None:
        return None
    text = value.decode("latin-1")
    return _PORT.sub("", text).lower().removesuffix(".") or None
