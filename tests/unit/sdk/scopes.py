"""ASGI scopes as servers make them."""

from typing import Any


def scope(path: str = "/", **headers: str) -> dict[str, Any]:
    """An HTTP scope; a header's underscores stand for hyphens."""
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }


def scope_of(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """An HTTP scope with these very headers."""
    return {**scope(), "headers": list(headers)}
