"""Read the reply of one run from its events, whatever the protocol of the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.utils.json import parse_partial_json

from moa_graph._compat import on_aegra
from moa_graph.calling.answer import was_cut
from moa_graph.calling.filters import filter_reason
from moa_graph.calling.streams import is_answer
from moa_graph.server.aegra.streams import RESTARTED
from moa_graph.server.drain import MESSAGE, cut
from moa_graph.server.protocols.errors import ApiError, failed
from moa_graph.server.written import records_in
from moa_graph.state import AGGREGATOR_RECORD, total_usage

_LOST = "Events of this run were lost, so that the answer that was sent is not whole."

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why a reply ended, in the terms of Chat Completions."""


@dataclass(frozen=True)
class TextDelta:
    """A piece of the reply's text."""

    text: str


@dataclass(frozen=True)
class RefusalDelta:
    """A piece of the model's refusal."""

    text: str


@dataclass(frozen=True)
class CallDelta:
    """A piece of a tool call.

    Args:
        index: Number of the call in the reply, from 0.
        id: Id of the call, in its first piece.
        name: Name of the tool, in its first piece.
        arguments: Piece of the arguments' JSON.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


Delta = TextDelta | RefusalDelta | CallDelta


@dataclass(frozen=True)
class ToolCall:
    """A whole tool call; the arguments are JSON, or the invalid text that the model wrote."""

    id: str | None
    name: str | None
    arguments: str


class Keeper(Protocol):
    """Keeps the reply of a run."""

    async def keep(self) -> None:
        """Keep a whole reply."""

    def drop(self) -> None:
        """Forget a run that ended without a reply."""


class Reply:
    """The reply of a run.

    Args:
        events: Events of the run, as the server's own API streams them.
        keeper: Who keeps the reply; None if it is not kept.
    """

    def __init__(self, events: AsyncGenerator[Any, None], keeper: Keeper | None = None) -> None:
        self._events = events
        self._keeper = keeper
        self._is_kept = False
        self._deltas = self._read()
        self._first: asyncio.Task[Delta | None] | None = None
        self._message: AIMessage | None = None
        self._usages: list[Any] = []
        self._pieces = _Pieces()
        self._told: list[Delta] = []
        self._streams = False
        self._starts = 0
        self._repeats = False  # whether the run makes a reply again that is already whole

    @classmethod
    def of_state(cls, values: Mapping[str, Any]) -> Reply:
        """Return the reply that the state of an ended run has.

        Args:
            values: Values of the thread.

        Raises:
            ApiError: If the state has no reply.
        """

        async def no_events() -> AsyncGenerator[Any, None]:
            return
            yield

        reply = cls(no_events())
        reply._note({"": {**values, "messages": (values.get("messages") or [])[-1:]}})
        if reply._message is None:
            raise ApiError(404, "This response was not completed.", "not_found")
        return reply

    async def begin(self, seconds: float) -> None:
        """Wait up to `seconds` for the first piece, so that an early error sets the HTTP status.

        Raises:
            ApiError: If the run fails by then.
        """
        self._streams = True
        self._first = asyncio.ensure_future(anext(self._deltas, None))
        await asyncio.wait({self._first}, timeout=seconds)
        if self._first.done():
            self._first.result()

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Yield the pieces of the reply, which is whole when this ends.

        Raises:
            ApiError: If the run fails, or ends without a reply.
        """
        if self._first is not None and (first := await self._first) is not None:
            yield first
        async for delta in self._deltas:
            yield delta
        if self._keeper is not None and not self._is_kept:
            self._is_kept = True
            await self._keeper.keep()

    async def whole(self) -> None:
        """Wait until the reply is whole.

        Raises:
            ApiError: If the run fails, or ends without a reply.
        """
        async for _ in self.deltas():
            pass

    async def end(self) -> None:
        """Close the event stream; the server cancels the run if it has not ended."""
        if self._first is not None and not self._first.done():
            self._first.cancel()
            await asyncio.wait({self._first})
        await self._deltas.aclose()
        await self._events.aclose()
        if self._keeper is not None and not self._is_kept:
            self._keeper.drop()

    # --- what a whole reply has ------------------------------------------------------------

    @property
    def text(self) -> str:
        """The text of the reply."""
        return self._whole.text

    @property
    def refusal(self) -> str | None:
        """The model's refusal to answer."""
        refusal: str | None = self._whole.additional_kwargs.get("refusal")
        return refusal

    @property
    def calls(self) -> list[ToolCall]:
        """The tool calls of the reply."""
        whole = self._whole
        # The pieces are what the model has written; LangChain completes the arguments of a call
        # that was cut.
        if self._pieces.have_calls_of(whole):
            return self._pieces.calls
        valid = (
            ToolCall(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
            for call in whole.tool_calls
        )
        invalid = (
            ToolCall(call["id"], call["name"], call["args"] or "")
            for call in whole.invalid_tool_calls
        )
        return [*valid, *invalid]

    @property
    def finish(self) -> Finish:
        """Why the reply ended."""
        cut_off = was_cut(self._whole.response_metadata)
        if self._whole.tool_calls or self._whole.invalid_tool_calls:
            return "length" if cut_off else "tool_calls"
        if filter_reason(self._whole.response_metadata):
            return "content_filter"
        return "length" if cut_off else "stop"

    @property
    def usage(self) -> UsageMetadata | None:
        """The tokens of all models together; None if they are unknown."""
        return total_usage(self._usages)

    @property
    def dropped(self) -> list[str]:
        """Sampling settings that the aggregator's model did not take."""
        record = self._whole.response_metadata.get(AGGREGATOR_RECORD) or {}
        return [str(name) for name in record.get("dropped_settings") or ()]

    @property
    def _whole(self) -> AIMessage:
        assert self._message is not None
        return self._message

    # --- events ----------------------------------------------------------------------------

    async def _read(self) -> AsyncGenerator[Delta, None]:
        async for event in self._events:
            if event.event == "metadata":
                self._start()
            if self._repeats:
                continue
            for delta in self._pieces_in(event):
                self._told.append(delta)
                yield delta
        for delta in self._rest():
            yield delta

    def _start(self) -> None:
        """Note that the run starts, which it does again in another process if its process dies."""
        self._starts += 1
        self._repeats = self._starts > 1 and self._message is not None
        if self._starts > 1 and not self._repeats:
            self._pieces = _Pieces()
        if self._starts > 1 and self._streams and self._told and not self._repeats:
            raise ApiError(502, RESTARTED, "restarted")

    def _pieces_in(self, event: Any) -> Iterator[Delta]:
        if event.event == "error":
            raise failed(event.data)
        if event.event == "messages":
            message, metadata = event.data
            if is_answer(metadata):
                yield from self._pieces.of(message)
        elif event.event == "updates":
            self._note(event.data)

    def _rest(self) -> Iterator[Delta]:
        """Yield what is left at the end of the events, and check that the reply is whole."""
        if self._message is None:
            said = MESSAGE if cut.is_set() else "The run was cancelled, or ended without an answer."
            raise ApiError(502, said, "no_answer")
        if not self._told:
            yield from self._pieces.of(self._message.model_dump())
        elif self._streams and on_aegra() and not self._told_all(self._message):
            raise ApiError(502, _LOST, "incomplete")

    def _told_all(self, message: AIMessage) -> bool:
        """Return whether the pieces are the whole reply; Aegra can lose events."""
        text = "".join(delta.text for delta in self._told if isinstance(delta, TextDelta))
        return text.split() == message.text.split() and self._pieces.have_calls_of(message)

    def _note(self, update: dict[str, Any]) -> None:
        # After a restart, the stored writes of the interrupted step come again.
        again = self._starts > 1 and (update.get("__metadata__") or {}).get("cached")
        for written in update.values():
            if not isinstance(written, dict):
                continue
            usages: list[Any] = []
            for field in ("proposals", "decisions"):
                usages += [record.get("usage") for record in records_in(written, field)]
            messages = records_in(written, "messages")
            if messages and messages[-1].get("type") == "ai":
                self._message = AIMessage.model_validate(messages[-1])
                usages.append(self._message.usage_metadata)
            self._usages += [] if again else usages


class _Pieces:
    """The pieces that the messages and message chunks of one reply have."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        """The tool calls so far."""
        self._numbers: dict[Any, int] = {}

    def have_calls_of(self, message: AIMessage) -> bool:
        """Return whether the tool calls so far are those of a whole message."""
        texts = [call.arguments for call in self.calls]
        valid = [call["args"] for call in message.tool_calls]
        invalid = [call["args"] or "" for call in message.invalid_tool_calls]
        whole = len(texts) >= len(valid) + len(invalid)
        return whole and _are_in(valid, [*map(_read, texts)]) and _are_in(invalid, texts)

    def of(self, message: dict[str, Any]) -> Iterator[Delta]:
        """Yield the pieces that a message or message chunk has."""
        if text := _text(message.get("content")):
            yield TextDelta(text)
        if refusal := (message.get("additional_kwargs") or {}).get("refusal"):
            yield RefusalDelta(refusal)
        if chunks := message.get("tool_call_chunks"):
            for c in chunks:
                yield self._call(c.get("index"), c.get("id"), c.get("name"), c.get("args"))
        elif message.get("type") == "ai":
            for call in message.get("tool_calls") or ():
                yield self._call(call["id"], call["id"], call["name"], json.dumps(call["args"]))
            for call in message.get("invalid_tool_calls") or ():
                yield self._call(call["id"], call["id"], call["name"], call["args"])

    def _call(self, key: Any, call_id: str | None, name: str | None, args: str | None) -> CallDelta:
        """Return the piece of a call, and add it to the call.

        Some providers omit the index of a piece, or give several calls the same one: a new id
        starts a new call. Others omit the id, so that one is made.
        """
        if key is None:
            key = call_id or next(reversed(self._numbers), None)
        number = self._numbers.get(key)
        is_other = number is not None and call_id and self.calls[number].id != call_id
        if number is None or (is_other and self.calls[number].name):
            number = self._numbers[key] = len(self.calls)
            call_id = call_id or f"call_{uuid4().hex}"
            self.calls.append(ToolCall(call_id, name, args or ""))
            return CallDelta(number, call_id, name, args or "")
        call = self.calls[number]
        whole = ToolCall(call.id, call.name or name, call.arguments + (args or ""))
        self.calls[number] = whole
        return CallDelta(number, None, None if call.name else name, args or "")


def _are_in(some: list[Any], all_of_them: list[Any]) -> bool:
    return all(one in all_of_them for one in some)


def _read(arguments: str) -> Any:
    """Return the arguments of a call as LangChain reads them; None if they are no JSON."""
    try:
        return parse_partial_json(arguments) if arguments else {}
    except ValueError:
        return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = [block for block in content or () if isinstance(block, dict)]
    return "".join(block.get("text", "") for block in blocks if block.get("type") == "text")
