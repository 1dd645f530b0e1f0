"""Write a reply as a response of OpenAI's Responses API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator
from itertools import count
from typing import Any, Literal

from openai.types.responses import (
    FunctionTool,
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseError,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseRefusalDeltaEvent,
    ResponseRefusalDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel

from moa_graph.server.protocols.blocks import Block, Change, blocks
from moa_graph.server.protocols.errors import ApiError, as_api_error
from moa_graph.server.protocols.reply import Reply
from moa_graph.server.protocols.responses.request import ResponsesRequest
from moa_graph.server.protocols.responses.stored import StoredResponse, created_at, item_id

Status = Literal["in_progress", "completed", "incomplete"]
_INCOMPLETE: dict[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class ResponseAnswer:
    """Response of one run.

    Args:
        reply: The reply of the run.
        response: The response, before the reply.
        completed: When it was completed, in Unix seconds; None for the time at which it is.
    """

    def __init__(self, reply: Reply, response: Response, completed: int | None = None) -> None:
        self._reply = reply
        self._response = response
        self._completed = completed
        self._numbers = count()

    @classmethod
    def to(cls, reply: Reply, asked: ResponsesRequest, response: str) -> ResponseAnswer:
        """Return the answer to a request.

        Args:
            reply: The reply of the run.
            asked: The request.
            response: Id of the response.
        """
        tools = [
            FunctionTool(
                type="function",
                name=tool.name,
                description=tool.description,
                parameters=dict(tool.parameters) if tool.parameters is not None else None,
                strict=tool.strict,
            )
            for tool in asked.tools or ()
        ]
        echoed = asked.model_dump(
            mode="json",
            by_alias=True,
            include={
                "instructions", "metadata", "temperature", "top_p", "max_output_tokens",
                "previous_response_id", "text", "reasoning", "truncation", "user", "store",
            },
        )  # fmt: skip
        text = echoed["text"] if (echoed["text"] or {}).get("format") else None
        return cls(
            reply,
            Response.model_validate(
                {
                    **echoed,
                    "metadata": asked.metadata or {},
                    "text": text or {"format": {"type": "text"}},
                    "store": asked.is_stored,
                    "tools": tools,
                    "tool_choice": _choice(asked),
                    "parallel_tool_calls": asked.parallel_tool_calls is not False,
                    **_head(response, asked.model, int(time.time())),
                }
            ),
        )

    @classmethod
    def of(cls, stored: StoredResponse) -> ResponseAnswer:
        """Return the answer that a stored response has.

        Raises:
            ApiError: If its run did not end with a reply.
        """
        about, created = stored.about(), created_at(stored.metadata)
        head = _head(stored.id, about.pop("model"), created)
        return cls(
            stored.reply(),
            Response.model_validate(
                {
                    **head,
                    **about,
                    "tools": [],
                    "tool_choice": "auto",
                    "parallel_tool_calls": True,
                    "store": True,
                }
            ),
            created,
        )

    def whole(self) -> dict[str, Any]:
        """Return the response of a whole reply."""
        text, refusal = self._reply.text, self._reply.refusal
        found = []
        if text or refusal:
            found.append(Block("text" if text else "refusal", 0, text=text or refusal or ""))
        found += [
            Block("call", len(found) + number, number, call.id, call.name, call.arguments)
            for number, call in enumerate(self._reply.calls)
        ]
        return _plain(self._ended(found))

    async def events(self) -> AsyncGenerator[dict[str, str], None]:
        """Yield the server-sent events of the streamed response."""
        found: list[Block] = []
        try:
            for event in (ResponseCreatedEvent, ResponseInProgressEvent):
                yield self._event(event, response=self._response)
            async for change in blocks(self._reply.deltas()):
                if change.change == "start":
                    found.append(change.block)
                for told in self._told(change):
                    yield told
            ended = self._ended(found)
            whole = ended.status == "completed"
            yield self._event(
                ResponseCompletedEvent if whole else ResponseIncompleteEvent, response=ended
            )
        except Exception as raised:  # noqa: BLE001 - a stream must not end as if it were whole
            error = as_api_error(raised)
            for told in self._failed(error, found):
                yield told
        finally:
            await self._reply.end()

    def _failed(self, error: ApiError, found: list[Block]) -> Iterator[dict[str, str]]:
        """Yield an error, and then the failed response, as OpenAI does.

        Clients raise the error; some that meet the failed response first raise one without a
        message.
        """
        about = {"code": error.code or "server_error", "message": error.message, "param": None}
        body = {"type": "error", "sequence_number": next(self._numbers), **about, **error.openai}
        yield {"event": "error", "data": json.dumps(body, ensure_ascii=False)}
        output = [self._item(block, "incomplete") for block in found]
        said = ResponseError(code="server_error", message=error.message)
        update = {"status": "failed", "error": said, "output": output}
        yield self._event(ResponseFailedEvent, response=self._response.model_copy(update=update))

    def _ended(self, found: list[Block]) -> Response:
        reason = _INCOMPLETE.get(self._reply.finish)
        status: Status = "incomplete" if reason else "completed"
        usage = self._usage()
        update = {
            "status": status,
            "output": [self._item(block, status) for block in found],
            "incomplete_details": IncompleteDetails(reason=reason) if reason else None,
            "completed_at": self._completed or int(time.time()),
            **({"usage": usage} if usage else {}),
        }
        return self._response.model_copy(update=update)

    def _usage(self) -> ResponseUsage | None:
        if (usage := self._reply.usage) is None:
            return None
        read = usage.get("input_token_details") or {}
        written = usage.get("output_token_details") or {}
        return ResponseUsage(
            input_tokens=usage["input_tokens"],
            input_tokens_details=InputTokensDetails(
                cached_tokens=read.get("cache_read", 0),
                cache_write_tokens=read.get("cache_creation", 0),
            ),
            output_tokens=usage["output_tokens"],
            output_tokens_details=OutputTokensDetails(reasoning_tokens=written.get("reasoning", 0)),
            total_tokens=usage["total_tokens"],
        )

    # --- blocks ------------------------------------------------------------------------------

    def _told(self, change: Change) -> Iterator[dict[str, str]]:
        block = change.block
        where = {"output_index": block.index}
        if change.change == "start":
            item = self._item(block, "in_progress", empty=True)
            yield self._event(ResponseOutputItemAddedEvent, item=item, **where)
        inside = {**where, "item_id": self._id(block)}
        if block.kind == "call":
            yield from self._call_told(change, inside)
        else:
            yield from self._text_told(change, {**inside, "content_index": 0})
        if change.change == "end":
            item = self._item(block, "completed")
            yield self._event(ResponseOutputItemDoneEvent, item=item, **where)

    def _call_told(self, change: Change, place: dict[str, Any]) -> Iterator[dict[str, str]]:
        if change.change == "piece":
            yield self._event(ResponseFunctionCallArgumentsDeltaEvent, delta=change.piece, **place)
        elif change.change == "end":
            written = {"arguments": change.block.text or "{}", "name": change.block.name or ""}
            yield self._event(ResponseFunctionCallArgumentsDoneEvent, **written, **place)

    def _text_told(self, change: Change, place: dict[str, Any]) -> Iterator[dict[str, str]]:
        block = change.block
        refuses = block.kind == "refusal"
        if change.change == "start":
            yield self._event(ResponseContentPartAddedEvent, part=_part(block, ""), **place)
        elif change.change == "piece":
            kind = ResponseRefusalDeltaEvent if refuses else ResponseTextDeltaEvent
            no_logprobs: dict[str, Any] = {} if refuses else {"logprobs": []}
            yield self._event(kind, delta=change.piece, **no_logprobs, **place)
        else:
            if refuses:
                yield self._event(ResponseRefusalDoneEvent, refusal=block.text, **place)
            else:
                yield self._event(ResponseTextDoneEvent, text=block.text, logprobs=[], **place)
            part = _part(block, block.text)
            yield self._event(ResponseContentPartDoneEvent, part=part, **place)

    def _id(self, block: Block) -> str:
        if block.kind == "call":
            return item_id("fc", self._response.id, block.call or 0)
        return item_id("msg", self._response.id, block.index)

    def _item(
        self, block: Block, status: Status, *, empty: bool = False
    ) -> ResponseOutputMessage | ResponseFunctionToolCall:
        if block.kind == "call":
            return ResponseFunctionToolCall(
                type="function_call",
                id=self._id(block),
                call_id=block.id or "",
                name=block.name or "",
                arguments="" if empty else block.text or "{}",
                status=status,
            )
        return ResponseOutputMessage(
            type="message",
            id=self._id(block),
            role="assistant",
            status=status,
            content=[] if empty else [_part(block, block.text)],
        )

    def _event(self, kind: type[BaseModel], **fields: Any) -> dict[str, str]:
        name = kind.model_fields["type"].annotation.__args__[0]  # type: ignore[union-attr]
        event = kind(type=name, sequence_number=next(self._numbers), **fields)
        return {"event": name, "data": json.dumps(_plain(event), ensure_ascii=False)}


def _head(response: str, model: str, created: int) -> dict[str, Any]:
    return {
        "id": response,
        "object": "response",
        "created_at": created,
        "model": model,
        "status": "in_progress",
        "output": [],
        "error": None,
        "incomplete_details": None,
        "background": False,
    }


def _part(block: Block, text: str) -> ResponseOutputText | ResponseOutputRefusal:
    if block.kind == "refusal":
        return ResponseOutputRefusal(type="refusal", refusal=text)
    return ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])


def _choice(asked: ResponsesRequest) -> Any:
    if asked.tool_choice is None or isinstance(asked.tool_choice, str):
        return asked.tool_choice or "auto"
    return asked.tool_choice.model_dump()


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
