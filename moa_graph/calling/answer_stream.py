"""Remove reasoning from a streamed answer."""

from __future__ import annotations

import copy
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from moa_graph.calling.answer import read_answer
from moa_graph.calling.reasoning import ReasoningSplitter
from moa_graph.models.text import is_thought, utf8

_HIGH_SURROGATES = ("\ud800", "\udbff")


class AnswerStream:
    """Rewrite the messages of the model runs behind one answer; an agent makes several runs.

    Args:
        hold: Whether the model begins its reasoning without an opening tag, so that nothing is
            shown before the closing tag.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self._hold = hold
        self._texts: dict[Any, _ShownText] = {}

    def shown(self, message: Any, run: Any = None) -> list[Any]:
        """Return the replacements of a message, a message chunk, or a protocol event.

        Args:
            message: The output of the model's run.
            run: Key of the run; the ids of its chunks may differ.
        """
        if isinstance(message, AIMessageChunk):
            return self._chunk(message, run)
        if isinstance(message, AIMessage):
            return [read_answer(message).message]
        if isinstance(message, dict) and "event" in message:
            return self._event(message, run)
        return [message]

    def _text(self, key: Any) -> _ShownText:
        if key not in self._texts:
            self._texts[key] = _ShownText(hold=self._hold)
        return self._texts[key]

    def _chunk(self, chunk: AIMessageChunk, run: Any) -> list[Any]:
        text = self._text(run)
        last = chunk.chunk_position == "last"
        content: Any
        if isinstance(chunk.content, str):
            content = text.add(chunk.content) + (text.end() if last else "")
        else:
            content = [_with_text(block, text) for block in chunk.content]
            content = [block for block in content if block is not None]
            if last and (rest := text.end()):
                content.append({"type": "text", "text": rest, "index": text.index})
        if last:
            del self._texts[run]
        if content == chunk.content:
            return [chunk]
        if not content and _is_text_alone(chunk):
            return []
        return [chunk.model_copy(update={"content": content})]

    def _event(self, event: dict[str, Any], run: Any) -> list[Any]:
        key = (run, event.get("index"))
        kind = event["event"]
        if kind == "content-block-delta":
            delta = event.get("delta") or {}
            if delta.get("type") not in ("text-delta", "text"):
                return [event]
            if shown := self._text(key).add(str(delta.get("text", ""))):
                return [{**event, "delta": {**delta, "text": shown}}]
            return []
        block = event.get("content")
        if kind == "content-block-finish" and isinstance(block, dict) and "text" in block:
            whole = self._text(key)
            rest = whole.end()
            finish = {**event, "content": {**block, "text": whole.answer}}
            if not rest:
                return [finish]
            delta = {"type": "text-delta", "text": rest}
            return [
                {"event": "content-block-delta", "index": event["index"], "delta": delta},
                finish,
            ]
        return [event]


class _ShownText:
    """One streamed text, without reasoning and without split surrogate pairs."""

    def __init__(self, *, hold: bool) -> None:
        self._splitter = ReasoningSplitter(hold=hold)
        self._half = ""
        self.index: Any = 0
        """Index of the block with the latest part of the text."""

    @property
    def answer(self) -> str:
        return self._splitter.answer

    def add(self, text: str) -> str:
        text, self._half = self._half + text, ""
        if text and _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
            text, self._half = text[:-1], text[-1]
        return self._splitter.add(utf8(text))

    def end(self) -> str:
        shown = self._splitter.add(utf8(self._half)) + self._splitter.end()
        self._half = ""
        return shown


def _with_text(block: Any, text: _ShownText) -> Any:
    if isinstance(block, str):
        return text.add(block) or None
    if is_thought(block):
        shown_as = {k: v for k, v in block.items() if k not in ("text", "thought")}
        return {**shown_as, "type": "reasoning", "reasoning": block.get("text", "")}
    if isinstance(block, dict) and block.get("type") == "text":
        text.index = block.get("index", text.index)
        shown = text.add(str(block.get("text") or ""))
        changed = copy.copy(block)
        changed["text"] = shown
        return changed if shown or not block.get("text") else None
    return block


def _is_text_alone(chunk: AIMessageChunk) -> bool:
    """Return whether a chunk contains nothing besides its text."""
    others = (
        chunk.tool_call_chunks,
        chunk.usage_metadata,
        chunk.additional_kwargs,
        chunk.response_metadata,
        chunk.chunk_position,
    )
    return not any(others)
