"""What a value must be so that it can be sent as JSON, and stored in a database."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

DEEPEST = 100
"""Levels of nested objects and lists that a value may have."""
NUL = "\x00"
TOO_DEEP = f"The request is nested too deeply. The maximum is {DEEPEST} levels."
TOO_LARGE = "does not fit into 64 bits"

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def check_value(given: Any) -> None:
    """Check that a value can be sent as JSON, and stored in a database.

    Args:
        given: Value of JSON.

    Raises:
        ValueError: If it is nested too deeply, or has a number or a text that cannot be stored.
            The message names the place and the rule.
    """
    waiting: list[tuple[Any, _Place | None, int]] = [(given, None, 0)]
    while waiting:
        value, place, level = waiting.pop()
        if isinstance(value, dict | list):
            if level == DEEPEST:
                raise ValueError(TOO_DEEP)
            named = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(inner, (name, place), level + 1) for name, inner in named]
            if isinstance(value, dict) and (wrong := _wrong_text("".join(value))):
                raise ValueError(_told(place, f"in the name of a field, {wrong}"))
        elif wrong := _wrong_number(value) or _wrong_text(value):
            raise ValueError(_told(place, wrong))


def is_uuid(value: Any) -> bool:
    """Return whether a value is a UUID, or the text of one."""
    try:
        UUID(str(value))
    except ValueError:
        return False
    return True


_Place = tuple[Any, Any]
"""The name of a field or the number of an item, and the place of what has it."""


def _wrong_number(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"the number must be finite, not {value}"
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        return f"the integer {TOO_LARGE}"
    return ""


def _wrong_text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if NUL in value:
        return "the text must not contain a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "the text must be valid Unicode: it contains half of a surrogate pair"
    return ""


def _told(place: _Place | None, rule: str) -> str:
    steps: list[str] = []
    while place is not None:
        name, place = place
        steps.append(ascii(name)[1:-1] if isinstance(name, str) else str(name))
    return f"{'.'.join(reversed(steps))}: {rule}." if steps else f"{rule}."
