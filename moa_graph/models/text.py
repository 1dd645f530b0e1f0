"""Texts from providers, users and programs: repaired for UTF-8, and ended as sentences."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage

M = TypeVar("M", bound=BaseMessage)

_SURROGATE = re.compile("[\ud800-\udfff]")


def utf8(text: str) -> str:
    """Return the text with surrogate pairs joined; a lone surrogate becomes U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def sentence(text: str) -> str:
    """Return the text with a full stop, unless it ends with a mark of its own."""
    text = text.rstrip()
    return text if text[-1:] in ".…!?:" else f"{text}."


def utf8_values(value: Any) -> Any:
    """Apply `utf8` to every string in a JSON-like value; return the same object if none changes."""
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, dict):
        changed = {utf8_values(k): utf8_values(v) for k, v in value.items()}
        same = all(k is a and v is b for (k, v), (a, b) in _pairs(value, changed))
        return value if same else changed
    if isinstance(value, list):
        items = [utf8_values(item) for item in value]
        return value if all(a is b for a, b in zip(value, items, strict=True)) else items
    return value


def is_thought(block: Any) -> bool:
    """Return whether a content block is a Gemini thought, which does not belong to the text."""
    return isinstance(block, dict) and block.get("thought") is True


def _pairs(left: dict[Any, Any], right: dict[Any, Any]) -> Any:
    return zip(left.items(), right.items(), strict=False)


def repaired(message: M) -> M:
    """Apply `utf8_values` to a message; return the same object if nothing changes."""
    content = message.content
    if isinstance(content, str) and content.isascii() and not message.additional_kwargs:
        calls = isinstance(message, AIMessage) and (
            message.tool_calls or message.invalid_tool_calls
        )
        if not calls and not message.name:
            return message  # the usual case
    update: dict[str, Any] = {}
    for field in ("content", "name", "additional_kwargs", "tool_calls", "invalid_tool_calls"):
        value = getattr(message, field, None)
        if (changed := utf8_values(value)) is not value:
            update[field] = changed
    return message.model_copy(update=update) if update else message
