"""Write a reply as an OpenAI chat completion."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

from moa_graph.server.protocols.chat_completions.request import ChatCompletionRequest
from moa_graph.server.protocols.errors import as_api_error
from moa_graph.server.protocols.fields import given
from moa_graph.server.protocols.reply import CallDelta, Delta, RefusalDelta, Reply, TextDelta


class ChatCompletionAnswer:
    """Chat completion of one run.

    Args:
        reply: The reply of the run.
        asked: The request.
    """

    def __init__(self, reply: Reply, asked: ChatCompletionRequest) -> None:
        self._reply = reply
        self._asked = asked
        self._common = {
            "id": f"chatcmpl-{uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
        }

    def whole(self) -> dict[str, Any]:
        """Return the chat completion of a whole reply."""
        reply = self._reply
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in reply.calls
        ]
        message = {
            "role": "assistant",
            "content": reply.text or None,
            "refusal": reply.refusal,
            **({"tool_calls": calls} if calls else {}),
        }
        choice = {
            "index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish
        }  # fmt: skip
        return {
            **self._common,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(),
        }

    async def events(self) -> AsyncGenerator[dict[str, str], None]:
        """Yield the server-sent events of the streamed chat completion."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async for delta in self._reply.deltas():
                yield self._chunk(_fields(delta))
            yield self._chunk({}, finish_reason=self._reply.finish)
            if self._asked.stream_options and self._asked.stream_options.include_usage:
                yield self._event(choices=[], usage=self._usage())
            yield {"data": "[DONE]"}
        except Exception as raised:  # noqa: BLE001 - a stream must not end as if it were whole
            error = as_api_error(raised)
            yield {"data": json.dumps(error.openai)}
        finally:
            await self._reply.end()

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, str]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event(choices=[choice])

    def _event(self, **fields: Any) -> dict[str, str]:
        chunk = {**self._common, "object": "chat.completion.chunk", **fields}
        return {"data": json.dumps(chunk, ensure_ascii=False)}

    def _usage(self) -> dict[str, Any] | None:
        if (usage := self._reply.usage) is None:
            return None
        read = usage.get("input_token_details") or {}
        written = usage.get("output_token_details") or {}
        return {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": read.get("cache_read", 0)},
            "completion_tokens_details": {"reasoning_tokens": written.get("reasoning", 0)},
        }


def _fields(delta: Delta) -> dict[str, Any]:
    match delta:
        case TextDelta(text):
            return {"content": text}
        case RefusalDelta(text):
            return {"refusal": text}
        case CallDelta(index, call_id, name, arguments):
            function = given({"name": name, "arguments": arguments})
            head = {"id": call_id, "type": "function"} if call_id else {}
            return {"tool_calls": [{"index": index, **head, "function": function}]}
