"""When to ask the proposers: values of the argument `consult`."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from moa_graph.prompts import question_place


def after_tool_error(messages: Sequence[BaseMessage]) -> bool:
    """Return whether a tool has failed since the model's last answer; a value of `consult`."""
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return False
        if isinstance(message, ToolMessage) and message.status == "error":
            return True
    return False


def when_repeating(messages: Sequence[BaseMessage]) -> bool:
    """Return whether the model's last two answers call the same tools; a value of `consult`."""
    place = question_place(messages)
    since = messages[place + 1 :] if place is not None else messages
    calls = [
        [(call["name"], call["args"]) for call in message.tool_calls]
        for message in since
        if isinstance(message, AIMessage)
    ]
    return len(calls) > 1 and bool(calls[-1]) and calls[-1] == calls[-2]
