"""What the proposers of an agent see: its tool calls and their results as text.

A proposer has no tools. Strict providers reject tool messages in a request without tools, and
other models imitate them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.utils.function_calling import convert_to_openai_tool

from moa_graph.calling.conversation import MEDIA, texts_in
from moa_graph.calling.reasoning import split_reasoning
from moa_graph.calling.references import estimated_tokens, trimmed
from moa_graph.models.text import utf8
from moa_graph.prompts import (
    ADVISE_AN_AGENT,
    DRAFT_OF_THE_AGENT,
    STEPS_OF_THE_AGENT,
    TOOLS_OF_THE_AGENT,
    with_text,
)

_RESULT = 1_000  # tokens of each tool result, at most
_RESULTS = 8_000  # tokens of all tool results together; the newest are served first
_CALL = 200  # tokens of the arguments of a tool call, and of the text beside it
_DESCRIPTION = 100  # tokens of the description of a tool
_LEFT_OUT = "[left out]"


def uses_tools(messages: Sequence[AnyMessage]) -> bool:
    """Return whether a conversation has tool calls or tool results."""
    return any(
        isinstance(m, ToolMessage)
        or (isinstance(m, AIMessage) and bool(m.tool_calls or m.invalid_tool_calls))
        for m in messages
    )


def advice_wanted(tools: Sequence[Any]) -> str:
    """Return the instruction for the proposers of an agent with these tools.

    Args:
        tools: The tools, in any form that LangChain supports.
    """
    listed = [_described(tool) for tool in tools]
    return "\n".join([ADVISE_AN_AGENT, *([TOOLS_OF_THE_AGENT, *listed] if listed else [])])


def without_tool_messages(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """Return a conversation in which tool calls and tool results are text.

    They are added to the human message before them. After the system messages, the result begins
    and ends with a human message, and human messages and answers alternate.

    Args:
        messages: The conversation.
    """
    results = _shortened_results(messages)
    turns = [_Turn()]
    for place, message in enumerate(messages):
        if isinstance(message, HumanMessage):
            # Strict providers reject two human messages in a row, so these are joined.
            if turns[-1].asked and turns[-1].answer:
                turns.append(_Turn())
            turns[-1].asks(message)
        elif isinstance(message, ToolMessage):
            turns[-1].result(message, results[place])
        elif isinstance(message, AIMessage):
            turns[-1].answered(message)
    system = [m for m in messages if isinstance(m, SystemMessage) and m.text.strip()]
    asked = [turn for turn in turns if turn.asked]
    last = asked[-1:]
    return [
        *system,
        *(m for turn in asked[:-1] for m in (turn.question(), turn.reply())),
        *(turn.question(whole=True) for turn in last),
    ]


@dataclass
class _Turn:
    """One human message, and what the agent did until the next one."""

    asked: list[HumanMessage] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)

    def asks(self, message: HumanMessage) -> None:
        """Add a human message."""
        if not self.asked:  # the conversation begins with an answer, as its start was left out
            self.steps += [_wrote(text) for text in self.answer]
            self.answer = []
        if (said := _without_blanks(message)) is not None:
            self.asked.append(said)

    def answered(self, message: AIMessage) -> None:
        """Add an answer, or a message with tool calls."""
        text = split_reasoning(utf8(str(message.text)))[0].strip()
        if not (message.tool_calls or message.invalid_tool_calls):
            self.answer += [text] if text else []
            return
        # An answer before a tool call was not the last one.
        said = [*self.answer, *([text] if text else [])]
        self.answer = []
        self.steps += [_wrote(words) for words in said]
        for call in message.tool_calls:
            self.steps.append(f"Called {call['name']} with {_arguments(call['args'])}.")
        for invalid in message.invalid_tool_calls:
            given = trimmed(utf8(str(invalid.get("args") or "")), _CALL)
            self.steps.append(
                f"Called {invalid.get('name') or 'a tool'} with arguments that could not be read: "
                f"{given}"
            )

    def result(self, message: ToolMessage, text: str) -> None:
        """Add the result of a tool."""
        name = message.name or "the tool"
        verb = "failed" if message.status == "error" else "returned"
        self.steps.append(f"{name} {verb}: {text}")

    def question(self, *, whole: bool = False) -> HumanMessage:
        """Return the human message with the agent's steps.

        Args:
            whole: Whether to add the answer, too, because no message follows.
        """
        question = _joined(self.asked)
        listed = [f"- {step}" for step in self.steps]
        parts = ["\n".join([STEPS_OF_THE_AGENT, *listed])] if listed else []
        if whole and self.answer:
            parts.append("\n".join([DRAFT_OF_THE_AGENT, *self.answer]))
        return with_text(question, "\n\n".join(parts)) if parts else question

    def reply(self) -> AIMessage:
        """Return the agent's answer."""
        return AIMessage("\n\n".join(self.answer))


def _without_blanks(message: HumanMessage) -> HumanMessage | None:
    """Return a human message without blank text; None if nothing is left."""
    if isinstance(message.content, str):
        return message if message.content.strip() else None
    blocks = [block for block in message.content if not _is_blank(block)]
    return message.model_copy(update={"content": blocks}) if blocks else None


def _is_blank(block: Any) -> bool:
    text = block.get("text", "") if isinstance(block, dict) else block
    is_text = not isinstance(block, dict) or block.get("type") == "text"
    return is_text and not str(text).strip()


def _wrote(text: str) -> str:
    return f"The agent wrote: {trimmed(text, _CALL)}"


def _joined(messages: Sequence[HumanMessage]) -> HumanMessage:
    """Return one human message with the content of all."""
    first, *others = messages
    for message in others:
        if isinstance(message.content, str):
            first = with_text(first, message.content)
        else:
            blocks = [{"type": "text", "text": first.content}]
            own = blocks if isinstance(first.content, str) else first.content
            first = first.model_copy(update={"content": [*own, *message.content]})
    return first


def _shortened_results(messages: Sequence[AnyMessage]) -> dict[int, str]:
    """Return the text of each tool result by its place, within the budget, newest first."""
    left = _RESULTS
    texts: dict[int, str] = {}
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if not isinstance(message, ToolMessage):
            continue
        text = _text_of(message.content)
        room = min(_RESULT, left)
        texts[place] = trimmed(text, room) if room else _LEFT_OUT
        left -= min(room, estimated_tokens(texts[place]))
    return texts


def _text_of(content: Any) -> str:
    """Return a tool result as text; for other content than text, its kind in brackets."""
    if isinstance(content, str):
        return utf8(content).strip() or "[nothing]"
    parts = [_part(block) for block in content]
    return "\n".join(part for part in parts if part.strip()) or "[nothing]"


def _part(block: Any) -> str:
    if not isinstance(block, dict):
        return utf8(str(block))
    kind = str(block.get("type") or "data")
    if "json" in block:
        return _as_json(block["json"])
    text = "" if kind in MEDIA else "\n".join(texts_in(block))
    return utf8(text) if text.strip() else f"[{kind}]"


def _arguments(given: Any) -> str:
    return trimmed(_as_json(given), _CALL)


def _as_json(value: Any) -> str:
    return utf8(json.dumps(value, ensure_ascii=False, default=str))


def _described(tool: Any) -> str:
    """Return the line of one tool: its name and its description."""
    try:
        given = tool if isinstance(tool, Mapping) else convert_to_openai_tool(tool)
        function = given.get("function", given)
        name = function.get("name") or given.get("name") or given.get("type")
        description = function.get("description") or ""
    except Exception:  # noqa: BLE001 - a provider's own tool has no form that LangChain knows
        name, description = getattr(tool, "name", type(tool).__name__), ""
    first = " ".join(utf8(str(description)).split())
    return f"- {name}: {trimmed(first, _DESCRIPTION)}" if first else f"- {name}"
