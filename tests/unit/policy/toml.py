"""Writes what tests make up as TOML (the standard library only reads it)."""

import json
import math
from collections.abc import Mapping
from typing import Any


def written(document: Mapping[str, Any]) -> str:
    """The document, one line for each key of the top."""
    return "".join(f"{_text(key)} = {_value(value)}\n" for key, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    return str(value)


def _text(text: str) -> str:
    # JSON escapes as TOML does, save that TOML wants DEL escaped, too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
