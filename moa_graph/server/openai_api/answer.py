"""Convert the events of a run to an OpenAI chat completion."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage

from moa_graph.calling.answer import was_cut
from moa_graph.calling.filters import filter_reason
from moa_graph.calling.streams import is_answer
from moa_graph.server.drain import MESSAGE, cut
from moa_graph.server.openai_api.errors import ApiError, failed
from moa_graph.server.openai_api.protocol import ChatCompletionRequest, given
from moa_graph.state import total_usage


class Answer:
    """Chat completion of one run, built from its events."""

    def __init__(self, events: AsyncGenerator[Any, None], asked: ChatCompletionRequest) -> None:
        self._events = events
        self._asked = asked
        self._deltas = self._read()
        self._first: asyncio.Task[dict[str, Any] | None] | None = None
        self._message: AIMessage | None = None
        self._usages: list[Any] = []
        self._calls: dict[Any, int] = {}
        self._common = {
            "id": f"chatcmpl-{uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
        }

    async def complete(self) -> dict[str, Any]:
        """Return the whole answer."""
        async for _ in self._deltas:
            pass
        message = self._message
        assert message is not None
        calls = [
            _call(call["id"], call["name"], json.dumps(call["args"], ensure_ascii=False))
            for call in message.tool_calls
        ]
        calls += [
            _call(call["id"], call["name"], call["args"] or "")
            for call in message.invalid_tool_calls
        ]
        said = {
            "role": "assistant",
            "content": message.text or None,
            "refusal": message.additional_kwargs.get("refusal"),
            **({"tool_calls": calls} if calls else {}),
        }
        choice = {
            "index": 0, "message": said, "logprobs": None, "finish_reason": _finish_reason(message)
        }  # fmt: skip
        return {
            **self._common,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(),
        }

    async def begin(self, seconds: float) -> None:
        """Wait up to `seconds` for the first token, so that an early error sets the HTTP status."""
        self._first = asyncio.ensure_future(anext(self._deltas, None))
        await asyncio.wait({self._first}, timeout=seconds)
        if self._first.done():
            self._first.result()

    async def chunks(self) -> AsyncGenerator[dict[str, str], None]:
        """Yield the server-sent events of the streamed answer."""
        assert self._first is not None
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            if (delta := await self._first) is not None:
                yield self._chunk(delta)
            async for delta in self._deltas:
                yield self._chunk(delta)
            assert self._message is not None
            yield self._chunk({}, finish_reason=_finish_reason(self._message))
            if self._asked.stream_options and self._asked.stream_options.include_usage:
                yield self._event(choices=[], usage=self._usage())
            yield {"data": "[DONE]"}
        except ApiError as error:
            yield {"data": json.dumps(error.body)}
        finally:
            await self.end()

    async def end(self) -> None:
        """Close the event stream; the server cancels the run if it has not ended."""
        if self._first is not None and not self._first.done():
            self._first.cancel()
            await asyncio.wait({self._first})
        await self._deltas.aclose()
        await self._events.aclose()

    async def _read(self) -> AsyncGenerator[dict[str, Any], None]:
        told = False
        async for event in self._events:
            if event.event == "error":
                raise failed(event.data)
            if event.event == "messages":
                message, metadata = event.data
                if is_answer(metadata) and (delta := self._delta(message)):
                    told = True
                    yield delta
            elif event.event == "updates":
                self._note(event.data)
        if self._message is None:
            said = MESSAGE if cut.is_set() else "The run was cancelled, or ended without an answer."
            raise ApiError(502, said, "no_answer")
        if not told:
            yield self._delta(self._message.model_dump()) or {"content": ""}

    def _note(self, update: dict[str, Any]) -> None:
        for written in update.values():
            if not isinstance(written, dict):
                continue
            for records in ("proposals", "decisions"):
                self._usages += [record["usage"] for record in written.get(records) or ()]
            if written.get("messages"):
                self._message = AIMessage.model_validate(written["messages"][-1])
                self._usages.append(self._message.usage_metadata)

    def _delta(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the OpenAI delta of a message or message chunk, or None if it is empty."""
        delta: dict[str, Any] = {}
        if text := _text(message.get("content")):
            delta["content"] = text
        if refusal := (message.get("additional_kwargs") or {}).get("refusal"):
            delta["refusal"] = refusal
        if chunks := message.get("tool_call_chunks"):
            delta["tool_calls"] = [
                self._call_delta(c.get("index"), c.get("id"), c.get("name"), c.get("args"))
                for c in chunks
            ]
        elif message.get("type") == "ai" and (calls := message.get("tool_calls")):
            delta["tool_calls"] = [
                self._call_delta(c["id"], c["id"], c["name"], json.dumps(c["args"])) for c in calls
            ]
        return delta or None

    def _call_delta(
        self, key: Any, call_id: str | None, name: str | None, args: str | None
    ) -> dict[str, Any]:
        if key is None:  # some providers omit the index: a new id starts a new call
            key = call_id or next(reversed(self._calls), None)
        index = self._calls.setdefault(key, len(self._calls))
        function = given({"name": name, "arguments": args or ""})
        if call_id:
            return {"index": index, "id": call_id, "type": "function", "function": function}
        return {"index": index, "function": function}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, str]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event(choices=[choice])

    def _event(self, **fields: Any) -> dict[str, str]:
        chunk = {**self._common, "object": "chat.completion.chunk", **fields}
        return {"data": json.dumps(chunk, ensure_ascii=False)}

    def _usage(self) -> dict[str, int] | None:
        """Return the token usage of all models together, or None if it is unknown."""
        if (usage := total_usage(self._usages)) is None:
            return None
        return {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        }


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = [block for block in content or () if isinstance(block, dict)]
    return "".join(block.get("text", "") for block in blocks if block.get("type") == "text")


def _call(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _finish_reason(message: AIMessage) -> str:
    """Return the finish reason in OpenAI's terms."""
    if message.tool_calls or message.invalid_tool_calls:
        return "tool_calls"
    if filter_reason(message.response_metadata):
        return "content_filter"
    return "length" if was_cut(message.response_metadata) else "stop"
