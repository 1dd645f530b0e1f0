"""Write a reply as a message of Anthropic's API."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

from anthropic.types import (
    InputJSONDelta,
    Message,
    MessageDeltaUsage,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawContentBlockStopEvent,
    RawMessageDeltaEvent,
    RawMessageStartEvent,
    RawMessageStopEvent,
    StopReason,
    TextBlock,
    TextDelta,
    ToolUseBlock,
    Usage,
)
from anthropic.types.raw_message_delta_event import Delta as End
from pydantic import BaseModel

from moa_graph.server.protocols.blocks import Block, Change, blocks
from moa_graph.server.protocols.errors import ApiError, as_api_error
from moa_graph.server.protocols.messages.request import MessagesRequest
from moa_graph.server.protocols.reply import Finish, Reply, ToolCall

_STOP_REASONS: dict[Finish, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class MessageAnswer:
    """Anthropic message of one run.

    Args:
        reply: The reply of the run.
        asked: The request.
    """

    def __init__(self, reply: Reply, asked: MessagesRequest) -> None:
        self._reply = reply
        self._message = Message(
            id=f"msg_{uuid4().hex}",
            type="message",
            role="assistant",
            model=asked.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=Usage(input_tokens=0, output_tokens=0),
        )

    def whole(self) -> dict[str, Any]:
        """Return the message of a whole reply.

        Raises:
            ApiError: If the arguments of a tool call are not a JSON object, and the answer was not
                cut.
        """
        reply = self._reply
        text = reply.text or reply.refusal
        content: list[Any] = [TextBlock(type="text", text=text)] if text else []
        content += [
            ToolUseBlock(type="tool_use", id=c.id or "", name=c.name or "", input=_arguments(c))
            for c in reply.calls
            if reply.finish != "length" or _is_whole(c)
        ]
        update = {
            "content": content,
            "stop_reason": _STOP_REASONS[reply.finish],
            "usage": Usage(**self._usage().model_dump(exclude_none=True)),
        }
        return self._message.model_copy(update=update).model_dump(mode="json", exclude_unset=True)

    async def events(self) -> AsyncGenerator[dict[str, str], None]:
        """Yield the server-sent events of the streamed message."""
        try:
            yield _event(RawMessageStartEvent(type="message_start", message=self._message))
            async for change in blocks(self._reply.deltas()):
                yield _event(_change(change))
            if self._reply.finish != "length":
                for call in self._reply.calls:
                    _arguments(call)
            end = End(stop_reason=_STOP_REASONS[self._reply.finish], stop_sequence=None)
            yield _event(RawMessageDeltaEvent(type="message_delta", delta=end, usage=self._usage()))
            yield _event(RawMessageStopEvent(type="message_stop"))
        except Exception as raised:  # noqa: BLE001 - a stream must not end as if it were whole
            error = as_api_error(raised)
            yield {"event": "error", "data": json.dumps(error.anthropic)}
        finally:
            await self._reply.end()

    def _usage(self) -> MessageDeltaUsage:
        """Return the tokens of all models together; zeros if they are unknown."""
        usage = self._reply.usage
        if usage is None:
            return MessageDeltaUsage(input_tokens=0, output_tokens=0)
        cached = (usage.get("input_token_details") or {}).get("cache_read", 0)
        # Anthropic's input tokens do not include those read from a cache.
        return MessageDeltaUsage(
            input_tokens=usage["input_tokens"] - cached,
            cache_read_input_tokens=cached,
            output_tokens=usage["output_tokens"],
        )


def _change(change: Change) -> BaseModel:
    block = change.block
    if change.change == "start":
        return RawContentBlockStartEvent(
            type="content_block_start", index=block.index, content_block=_empty(block)
        )
    if change.change == "end":
        return RawContentBlockStopEvent(type="content_block_stop", index=block.index)
    delta = (
        InputJSONDelta(type="input_json_delta", partial_json=change.piece)
        if block.kind == "call"
        else TextDelta(type="text_delta", text=change.piece)
    )
    return RawContentBlockDeltaEvent(type="content_block_delta", index=block.index, delta=delta)


def _empty(block: Block) -> Any:
    if block.kind == "call":
        return ToolUseBlock(type="tool_use", id=block.id or "", name=block.name or "", input={})
    return TextBlock(type="text", text="")


def _arguments(call: ToolCall) -> dict[str, Any]:
    try:
        read = json.loads(call.arguments or "{}")
    except json.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise ApiError(
            502,
            f"The model wrote arguments for the tool {call.name!r} that are not a JSON object.",
            "invalid_tool_call",
        )
    return read


def _is_whole(call: ToolCall) -> bool:
    try:
        _arguments(call)
    except ApiError:
        return False
    return True


def _event(event: BaseModel) -> dict[str, str]:
    data = event.model_dump(mode="json", exclude_unset=True)
    return {"event": data["type"], "data": json.dumps(data, ensure_ascii=False)}
