"""Plain values of quotas.toml: how each is read, and how one that is wrong is shown."""

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any, get_args

from partywall_service.names import is_name

_SHOWN = 60
"""Characters of a wrong value that an error repeats."""

MAX_WEIGHT = 1e15
"""Above any use, and below where a float stops telling whole numbers apart."""

MAX_THRESHOLDS = 10
MAX_PERCENT = 1000


def shown(value: object) -> str:
    """A value as an error repeats it: short, on one line, and safe whatever it is.

    Not plain `repr`: that fails on TOML's longest integers and deepest tables, and spells `true`
    as Python does.
    """
    if isinstance(value, list):
        few = ", ".join(_shown_inside(one) for one in value[:5])
        return _short(f"[{few}{', …' if len(value) > 5 else ''}]")
    return _shown_inside(value)


def _shown_inside(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _short(repr(value[: _SHOWN + 1]))
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a number of too many digits"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value)  # TOML has only floats, dates and times besides


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def expected_one_of(known: Collection[str], value: object) -> str:
    """What an error says of a value that is none of `known`, with the nearest one."""
    names = list(known)
    close = get_close_matches(value, names, 1) if isinstance(value, str) and len(value) < 99 else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    if not names:
        return f"there is none to name; got {shown(value)}"
    expected = f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    return f"expected {expected}; got {shown(value)}{hint}"


def read_text(value: object) -> str:
    """A tier's name.

    Raises:
        ValueError: as every reader here, with what was expected.
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a tier's name; got {shown(value)}")
    return value


def read_boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false; got {shown(value)}")
    return value


def read_weight(value: object) -> float:
    """A finite number above zero, small enough for arithmetic with floats."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_WEIGHT:
        raise ValueError(f"expected a number above 0, up to 1e15; got {shown(value)}")
    return value


def read_features(value: object) -> tuple[str, ...]:
    """Names of features, each once."""
    if not isinstance(value, list) or not all(
        isinstance(name, str) and is_name(name) for name in value
    ):
        raise ValueError(
            f'expected a list of feature names, as ["advanced-analytics"]; got {shown(value)}'
        )
    return tuple(dict.fromkeys(value))


def read_queue(value: object) -> str:
    """The name of a queue that workers serve."""
    if not isinstance(value, str) or not is_name(value):
        raise ValueError(f'expected the name of a queue, as "dedicated"; got {shown(value)}')
    return value


def read_thresholds(value: object) -> tuple[int, ...]:
    """Percents of a quota, ascending; over 100 are for levels that were set, or a tier left."""
    if (
        not isinstance(value, list)
        or len(value) > MAX_THRESHOLDS
        or not all(type(one) is int and 1 <= one <= MAX_PERCENT for one in value)
        or value != sorted(set(value))
    ):
        raise ValueError(
            f"expected up to {MAX_THRESHOLDS} whole percents from 1 to {MAX_PERCENT}, ascending, as"
            f" [50, 90]; got {shown(value)}"
        )
    return tuple(value)


def one_of(literal: Any) -> Callable[[object], Any]:  # noqa: ANN401 - a Literal has no type of its own
    """A reader of what `literal` (a `typing.Literal` of texts) allows."""
    choices: tuple[str, ...] = get_args(literal)

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(expected_one_of(choices, value))
        return value

    return read
