"""Jobs and results as JSON: what arq calls a serializer.

arq's own default is pickle, which lets whoever can write to Redis run code in a worker. JSON
carries what every language reads; what it cannot carry is refused where it is given, not lost.
"""

import asyncio
import builtins
import json
import sys
from typing import Any

from partywall_workers.errors import JobError, NotJson

MAX_DEPTH = 100
"""Lists and objects within an argument or a result; readers of JSON have limits of their own."""

_CHECKED = (
    ("a", "args", MAX_DEPTH + 1),
    ("k", "kwargs", MAX_DEPTH + 1),
    ("r", "result", MAX_DEPTH),
)
_ERROR = "__error__"
_PLAIN = (int, float, bool, type(None))


class RemoteFailure(JobError):
    """What a job raised, where its class is not known in this process: type and message."""


def dumps(data: dict[str, Any]) -> bytes:
    """A job, or a result, as JSON.

    Raises:
        NotJson: with the place of what it cannot carry.
    """
    if data.get("s") is False and isinstance(data["r"], BaseException):
        data = data | {"r": _error_as_json(data["r"])}
    for key, name, depth in _CHECKED:
        if key in data:
            _check(data[key], name, depth)
    return json.dumps(data, separators=(",", ":")).encode()


def loads(text: bytes) -> dict[str, Any]:
    """What `dumps` was given; tuples are lists, and exceptions of unknown classes RemoteFailure.

    Raises:
        ValueError: it is not JSON, or no object.
    """
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object; got {type(data).__name__}")
    result = data.get("r")
    if data.get("s") is False and isinstance(result, dict) and _ERROR in result:
        data["r"] = _error_of_json(result[_ERROR])
    return data


def sendable(text: str) -> str:
    """The text with what UTF-8 does not carry written out: an error may quote a file's odd name."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check(value: object, at: str, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value, at)
    elif isinstance(value, _PLAIN):
        if isinstance(value, float) and value - value != 0:
            raise NotJson(at, f"JSON has no {value!r}")
    elif isinstance(value, list | tuple | dict) and not depth:
        raise NotJson(f"{at[:60]}…", f"expected lists and objects at most {MAX_DEPTH} deep")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{at}[{index}]", depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise NotJson(at, f"expected keys that are strings; got {key!r}")
            _check_text(key, at)
            _check(item, f"{at}.{key}", depth - 1)
    else:
        raise NotJson(
            at,
            "expected what JSON carries (null, booleans, numbers, strings, lists, objects); got "
            f"{type(value).__name__}",
        )


def _check_text(text: str, at: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise NotJson(at, f"expected text that UTF-8 carries; got {text!r:.60}") from exc


def _error_as_json(error: BaseException) -> dict[str, Any]:
    args: list[Any] = []
    for arg in error.args:
        try:
            _check(arg, "args", MAX_DEPTH)
        except NotJson:
            arg = repr(arg)
        args.append(arg)
    kind = type(error)
    text = sendable(str(error))
    named = {"module": kind.__module__, "name": kind.__qualname__, "args": args, "text": text}
    return {_ERROR: named}


def _error_of_json(named: dict[str, Any]) -> BaseException:
    # Only what this process has imported itself: a result must not choose what is imported.
    name = named["name"]
    module = builtins if named["module"] == "builtins" else sys.modules.get(named["module"])
    kind = getattr(module, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception | asyncio.CancelledError):
        try:
            return kind(*named["args"])
        except Exception:  # noqa: BLE001, S110 - a class with arguments of its own; told below
            pass
    return RemoteFailure(f"{name}: {named['text']}" if named["text"] else name)
