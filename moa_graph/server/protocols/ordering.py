"""Order of translated messages: tool results follow their calls, as providers demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moa_graph.server.protocols.errors import ApiError


def ordered(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages of Chat Completions in the order that providers accept.

    Messages of the assistant that follow each other are joined, also around the results of their
    calls. What stands between the results of one message's calls follows them.

    Args:
        messages: Messages of a conversation.
    """
    result: list[dict[str, Any]] = []
    later: list[dict[str, Any]] = []
    waits: set[str] = set()  # calls without a result
    for given in messages:
        message = dict(given)
        if message["role"] == "tool":
            waits.discard(message["tool_call_id"])
            result.append(message)
        elif message["role"] == "assistant" and not later and (waits or _ends_with_it(result)):
            _join(_last_of_assistant(result), message)
            waits |= _calls(message)
        elif waits:
            later.append(message)
        else:
            result.append(message)
            waits |= _calls(message)
        if later and not waits:
            result, later = [*result, *later], []
    return [*result, *later]


def check_pairs(messages: Iterable[Mapping[str, Any]], field: str) -> None:
    """Check that each tool result follows its call.

    Args:
        messages: Messages of Chat Completions.
        field: Field of the request that has them.

    Raises:
        ApiError: If a result has no call before it.
    """
    called: set[str] = set()
    for message in messages:
        if message["role"] == "tool" and message["tool_call_id"] not in called:
            raise ApiError(
                400,
                f"{field}: the tool result {message['tool_call_id']!r:.100} has no call before it.",
                param=field,
            )
        called |= _calls(message)


def _calls(message: Mapping[str, Any]) -> set[str]:
    return {call["id"] for call in message.get("tool_calls") or ()}


def _ends_with_it(messages: list[dict[str, Any]]) -> bool:
    return bool(messages) and messages[-1]["role"] == "assistant"


def _last_of_assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return next(message for message in reversed(messages) if message["role"] == "assistant")


def _join(message: dict[str, Any], after: Mapping[str, Any]) -> None:
    """Add the text and the calls of a later message of the assistant to a message."""
    message["content"] = [*_parts(message.get("content")), *_parts(after.get("content"))] or ""
    if calls := [*(message.get("tool_calls") or ()), *(after.get("tool_calls") or ())]:
        message["tool_calls"] = calls


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())
