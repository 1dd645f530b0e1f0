"""Read what a model returned: its answer, its reasoning, and how it has ended."""

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
"""Where LangChain's messages keep reasoning that came outside of the content."""

_REASONING_BLOCKS = {"reasoning", "thinking", "redacted_thinking", "reasoning_content", "thought"}
_REASONING_FIELDS = (REASONING_KEY, "reasoning", "thinking", "reasoning_details", "thoughts")
_MEDIA = {"image", "image_url", "audio", "video", "file", "media", "inline_data"}
_CUT = {"length", "maxtokens", "maxoutputtokens", "modellength", "maxcompletiontokens"}


class NoAnswer(MoAError):
    """The model returned no usable text."""


@dataclass(frozen=True)
class Answer:
    """What a model returned, read.

    Args:
        message: The message: without reasoning in its text, and with text that is UTF-8.
        reasoning: What the model wrote before and between its answer; "" if nothing.
        filtered: The provider's word for why its content filter stopped the answer, if it did.
        broken_off: The provider's word for its failure in the middle of the answer, if it failed.
        unopened: Whether the reasoning came without an opening tag.
    """

    message: AIMessage
    reasoning: str = ""
    filtered: str | None = None
    broken_off: str | None = None
    unopened: bool = False

    @property
    def text(self) -> str:
        """The answer's text."""
        return str(self.message.text)

    @property
    def says_something(self) -> bool:
        """Whether there is an answer: text, a tool call, a picture …"""
        message = self.message
        if self.text.strip() or message.tool_calls or message.invalid_tool_calls:
            return True
        blocks = message.content if isinstance(message.content, list) else []
        return any(isinstance(b, dict) and b.get("type") in _MEDIA for b in blocks)

    @property
    def why_unusable(self) -> str | None:
        """Why its text is not a proposal; None if it is."""
        if self.filtered:
            return f"the content filter stopped the answer ({self.filtered})"
        if self.broken_off:
            return f"the provider failed in the middle of the answer ({self.broken_off})"
        return None if self.text.strip() else self.why_empty

    @property
    def why_empty(self) -> str:
        """Why there is no text in it."""
        if self.filtered:
            return f"the content filter stopped the answer ({self.filtered})"
        if self.message.additional_kwargs.get("refusal"):
            return "the model refused to answer"
        if self.message.tool_calls:
            return "the model only called tools; give an agent that runs them instead"
        reason = finish_reason(self.message.response_metadata)
        ended = f" (finish_reason: {reason})" if reason else ""
        if self.reasoning:
            return f"the answer was empty: the model wrote nothing but reasoning{ended}"
        return f"the answer was empty{ended}"


def read_answer(output: Any) -> Answer:
    """Read what a model returned.

    Args:
        output: A message, a string, a state with `messages`, or an object of a schema.

    Raises:
        TypeError: If there is no message in it.
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
    """Return the message with Gemini's parts that are thoughts as blocks of reasoning."""
    if isinstance(message.content, str) or not any(map(is_thought, message.content)):
        return message
    return message.model_copy(update={"content": [_thought_marked(b) for b in message.content]})


def _thought_marked(block: Any) -> Any:
    if is_thought(block) and "text" in block:
        return {"type": "reasoning", "reasoning": block["text"]}
    return block


def reasoning_apart(message: AIMessage) -> str:
    """The reasoning that a message carries beside its text: in blocks, or in other fields."""
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
    """Return the text in a provider's form of reasoning."""
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
    """The message without reasoning in its text, that reasoning, and whether it was unopened."""
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
    # The answer goes where the last text was: what came before it may have been reasoning.
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
    """Return the message of a model `.with_structured_output(..., include_raw=True)`."""
    raw = as_message(output["raw"])
    if output["parsed"] is None:
        return raw
    parsed = as_message(output["parsed"])
    return raw.model_copy(update={"content": parsed.content, "tool_calls": []})


def was_cut(metadata: Mapping[str, Any]) -> bool | None:
    """Whether an answer has ended at its limit of tokens; None if nothing says how it ended."""
    reason = finish_reason(metadata)
    if not reason:
        return None
    return "".join(c for c in reason.casefold() if c.isalnum()) in _CUT


def as_message(output: Any) -> AIMessage:
    """Return the message in what a model returned; an object of a schema is written as JSON.

    Raises:
        TypeError: If there is no message in it.
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
    if isinstance(output, BaseModel):  # of a model `.with_structured_output(...)`
        return AIMessage(output.model_dump_json())
    if isinstance(output, Mapping) and not output.keys() & {"messages", "raw"}:
        return AIMessage(json.dumps(output, ensure_ascii=False, default=str))
    raise TypeError(
        f"the model returned {type(output).__name__}, which is neither a message, a string, nor "
        "a state with `messages`"
    )
