"""Read a model's output: the answer, the reasoning, and how the answer ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, BaseMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from pydantic import BaseModel

from moa_graph.calling.filters import broken_off, filter_reason, finish_reason
from moa_graph.calling.reasoning import ReasoningSplitter
from moa_graph.errors import MoAError
from moa_graph.models.text import is_thought, repaired

REASONING_KEY = "reasoning_content"
"""Key in `additional_kwargs` under which LangChain keeps reasoning that is not in the content."""

_REASONING_BLOCKS = {"reasoning", "thinking", "redacted_thinking", "reasoning_content", "thought"}
_REASONING_FIELDS = (REASONING_KEY, "reasoning", "thinking", "reasoning_details", "thoughts")
_MEDIA = {"image", "image_url", "audio", "video", "file", "media", "inline_data"}
_CUT = {"length", "maxtokens", "maxoutputtokens", "modellength", "maxcompletiontokens"}


class NoAnswer(MoAError):
    """The model returned no usable text."""


@dataclass(frozen=True)
class Answer:
    """A model's answer, separated from its reasoning.

    Args:
        message: The message, without reasoning in its text; the text is valid UTF-8.
        reasoning: The model's reasoning; "" if there is none.
        filtered: The provider's reason if its content filter stopped the answer, else None.
        broken_off: The provider's reason if it failed in the middle of the answer, else None.
        unopened: Whether the reasoning had no opening tag.
    """

    message: AIMessage
    reasoning: str = ""
    filtered: str | None = None
    broken_off: str | None = None
    unopened: bool = False

    @property
    def text(self) -> str:
        """Text of the answer."""
        return str(self.message.text)

    @property
    def says_something(self) -> bool:
        """Whether the message has content, such as text, a tool call or an image."""
        message = self.message
        if self.text.strip() or message.tool_calls or message.invalid_tool_calls:
            return True
        blocks = message.content if isinstance(message.content, list) else []
        return any(isinstance(b, dict) and b.get("type") in _MEDIA for b in blocks)

    @property
    def why_unusable(self) -> str | None:
        """Reason why the text cannot be used as a proposal; None if it can."""
        if self.filtered:
            return f"the content filter stopped the answer ({self.filtered})"
        if self.broken_off:
            return f"the provider failed in the middle of the answer ({self.broken_off})"
        return None if self.text.strip() else self.why_empty

    @property
    def why_empty(self) -> str:
        """Reason why the message has no text."""
        if self.filtered:
            return f"the content filter stopped the answer ({self.filtered})"
        if self.message.additional_kwargs.get("refusal"):
            return "the model refused to answer"
        if self.message.tool_calls:
            return "the model returned only tool calls; use an agent that runs the tools"
        reason = finish_reason(self.message.response_metadata)
        ended = f" (finish_reason: {reason})" if reason else ""
        if self.reasoning:
            return f"the answer was empty: the model returned only reasoning{ended}"
        return f"the answer was empty{ended}"


def read_answer(output: Any) -> Answer:
    """Separate a model's output into answer and reasoning.

    Args:
        output: A message, a string, a state with `messages`, or an instance of a schema.

    Raises:
        TypeError: If `output` contains no message.
    """
    message = _with_thoughts_marked(repaired(as_message(output)))
    metadata = message.response_metadata
    cut = bool(metadata) and bool(was_cut(metadata))
    apart = reasoning_apart(message)
    message, inside, unopened = _without_reasoning(message, cut=cut)
    if inside and not apart:
        kwargs = {**message.additional_kwargs, REASONING_KEY: inside}
        message = message.model_copy(update={"additional_kwargs": kwargs})
    return Answer(
        message,
        "\n\n".join(part for part in (apart, inside) if part),
        filter_reason(metadata) if metadata else None,
        broken_off(metadata) if metadata else None,
        unopened,
    )


def _with_thoughts_marked(message: AIMessage) -> AIMessage:
    """Return the message with Gemini's thought blocks converted to reasoning blocks."""
    if isinstance(message.content, str) or not any(map(is_thought, message.content)):
        return message
    return message.model_copy(update={"content": [_thought_marked(b) for b in message.content]})


def _thought_marked(block: Any) -> Any:
    if is_thought(block) and "text" in block:
        return {"type": "reasoning", "reasoning": block["text"]}
    return block


def reasoning_apart(message: AIMessage) -> str:
    """Return the reasoning that a message has outside its text: in blocks or other fields."""
    if isinstance(message.content, str) and not message.additional_kwargs:
        return ""
    blocks = message.content if isinstance(message.content, list) else []
    parts = [
        _words(block)
        for block in blocks
        if isinstance(block, dict) and block.get("type") in _REASONING_BLOCKS
    ]
    parts += [_words(message.additional_kwargs.get(field)) for field in _REASONING_FIELDS]
    return "\n\n".join(dict.fromkeys(part.strip() for part in parts if part.strip()))


_NO_WORDS = {
    "type", "id", "index", "signature", "encrypted_content", "data", "format", "status", "extras"
}  # fmt: skip


def _words(value: Any) -> str:
    """Return the text in reasoning of any provider's format."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n\n".join(
            filter(None, (_words(v) for k, v in value.items() if k not in _NO_WORDS))
        )
    if isinstance(value, Sequence):
        return "\n\n".join(filter(None, map(_words, value)))
    return ""


def _without_reasoning(message: AIMessage, *, cut: bool) -> tuple[AIMessage, str, bool]:
    """Remove reasoning from a message's text.

    Returns:
        The message, the reasoning, and whether the reasoning had no opening tag.
    """
    content = message.content
    if isinstance(content, str):
        split = ReasoningSplitter.of(content, cut=cut)
        if not split.reasoning and split.answer == content:
            return message, "", False
        cleaned = message.model_copy(update={"content": split.answer})
        return cleaned, split.reasoning, split.unopened
    texts = [_block_text(block) for block in content]
    whole = "".join(text for text in texts if text is not None)
    split = ReasoningSplitter.of(whole, cut=cut)
    if not split.reasoning and split.answer == whole:
        return message, "", False
    # Put the answer in place of the last text block: earlier ones may have been reasoning.
    last = max(i for i, text in enumerate(texts) if text is not None)
    blocks: list[Any] = []
    for i, (block, text) in enumerate(zip(content, texts, strict=True)):
        if text is None:
            blocks.append(block)
        elif i == last and split.answer:
            said = split.answer
            blocks.append(said if isinstance(block, str) else {**block, "text": said})
    return message.model_copy(update={"content": blocks}), split.reasoning, False


def _block_text(block: Any) -> str | None:
    if isinstance(block, str):
        return block
    if isinstance(block, dict) and block.get("type") == "text":
        text = block.get("text")
        return text if isinstance(text, str) else None
    return None


def _structured(output: Mapping[str, Any]) -> AIMessage:
    """Return the message of a model with `.with_structured_output(..., include_raw=True)`."""
    raw = as_message(output["raw"])
    if output["parsed"] is None:
        return raw
    parsed = as_message(output["parsed"])
    return raw.model_copy(update={"content": parsed.content, "tool_calls": []})


def was_cut(metadata: Mapping[str, Any]) -> bool | None:
    """Return whether the token limit ended an answer; None if the metadata has no finish reason."""
    reason = finish_reason(metadata)
    if not reason:
        return None
    return "".join(c for c in reason.casefold() if c.isalnum()) in _CUT


def as_message(output: Any) -> AIMessage:
    """Convert a model's output to a message; an instance of a schema becomes JSON.

    Raises:
        TypeError: If `output` contains no message.
    """
    if isinstance(output, Mapping) and output.get("messages"):
        output = output["messages"][-1]
    if isinstance(output, Mapping) and {"raw", "parsed"} <= output.keys():
        return _structured(output)
    if isinstance(output, BaseMessageChunk):
        output = message_chunk_to_message(output)
    if isinstance(output, AIMessage):
        return output
    if isinstance(output, BaseMessage):
        return AIMessage(output.content, id=output.id, name=output.name)
    if isinstance(output, str):
        return AIMessage(output)
    if isinstance(output, BaseModel):  # from `.with_structured_output(...)`
        return AIMessage(output.model_dump_json())
    if isinstance(output, Mapping) and not output.keys() & {"messages", "raw"}:
        return AIMessage(json.dumps(output, ensure_ascii=False, default=str))
    raise TypeError(
        f"the model returned {type(output).__name__}, which is neither a message, a string, nor "
        "a state with `messages`"
    )
