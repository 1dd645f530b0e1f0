"""What strict providers demand of a request, and what their prompt caches serve."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

CHARACTERS = 4
"""Characters of a token."""


def broken_rule(body: dict[str, Any]) -> str | None:
    """The rule of a strict provider that a request breaks; None if it breaks none."""
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    acts = any(m["role"] == "tool" or m.get("tool_calls") for m in messages)
    if acts and not body.get("tools"):
        return "tool messages need tools"
    if "system" in roles[1:] or "developer" in roles[1:]:
        return "one system message, and it must be first"
    said = [role for role in roles if role not in ("system", "tool")]
    if said[:1] != ["user"]:
        return "the first message must be a user's"
    if roles[-1] == "assistant":
        return "the last message must not be the assistant's"
    if any(a == b for a, b in pairwise(r for r in roles if r != "tool") if not body.get("tools")):
        return "roles must alternate"
    if any(not _says_something(message) for message in messages):
        return "text must not be empty"
    return None


def _says_something(message: dict[str, Any]) -> bool:
    content = message.get("content")
    if message.get("tool_calls"):
        return True
    if isinstance(content, list):
        texts = [block["text"] for block in content if block["type"] == "text"]
        return bool(content) and all(text.strip() for text in texts)
    return bool(content and content.strip())


class PromptCache:
    """A provider's cache of prompts: the longest beginning that was served before."""

    def __init__(self) -> None:
        self._served: dict[str, list[str]] = {}

    def cached(self, model: str, body: dict[str, Any]) -> tuple[int, int]:
        """The tokens of the prompt, and those of them that stand in the cache."""
        prompt = json.dumps([body.get("tools"), *body["messages"]], sort_keys=True)[:-1]
        served = self._served.setdefault(model, [])
        longest = max((_common(prompt, old) for old in served), default=0)
        served.append(prompt)
        return len(prompt) // CHARACTERS, longest // CHARACTERS


def _common(a: str, b: str) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
