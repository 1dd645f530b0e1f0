"""Chat completions of OpenAI's SDK as plain data.

The SDK checks the types of each request, and makes typed objects of each response and of each
chunk, which LangChain converts to plain data again. Both take more CPU time than the rest of a
call.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from functools import lru_cache
from types import FunctionType
from typing import Any, Self

from moa_graph._compat import response_type_of

_PATH = "/chat/completions"
_OPTIONS = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "response_format"}
_DEFAULTS = {"choices": None, "system_fingerprint": None}
_SECURITY = {"bearer_auth": True}  # as in the SDK: never an administrator's key


class PlainCompletions:
    """Takes the place of a client's `chat.completions` in LangChain's chat models.

    The requests and their errors are those of the SDK. What is not a plain request is left to the
    SDK: options of a request, unknown parameters, and all requests if a tracer has replaced its
    method.

    Args:
        client: An `openai.AsyncOpenAI`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._typed = client.chat.completions
        self.with_raw_response = _WithRawResponse(client)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._typed, name)

    async def create(self, **payload: Any) -> Any:
        """Return the completion, or the stream of chunks as dicts."""
        if not payload.get("stream") or not _is_plain(self._typed, payload):
            return await self._typed.create(**payload)
        from openai import AsyncStream  # noqa: PLC0415 - optional

        return _Chunks(
            await self._client.post(
                _PATH,
                body=payload,
                cast_to=object,
                stream=True,
                stream_cls=AsyncStream[object],
                options={"security": _SECURITY},
            )
        )


class _Chunks:
    """A stream with the parts that LangChain uses."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for chunk in self._stream:
            for choice in chunk.get("choices") or ():
                for call in (choice.get("delta") or {}).get("tool_calls") or ():
                    call.setdefault("index", None)  # some providers leave it out
            yield chunk


class _WithRawResponse:
    """Takes the place of `chat.completions.with_raw_response`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._typed = client.chat.completions
        self._response_type = response_type_of(client)

    async def create(self, **payload: Any) -> Any:
        if payload.get("stream") or not _is_plain(self._typed, payload):
            return await self._typed.with_raw_response.create(**payload)
        return _Answer(
            await self._client.post(
                _PATH,
                body=payload,
                cast_to=self._response_type,
                options={"security": _SECURITY},
            )
        )


class _Answer:
    """A response with the parts that LangChain uses."""

    def __init__(self, response: Any) -> None:
        self.http_response = response
        self.headers = response.headers

    def parse(self) -> Any:
        """Return the body as a dict; as a string if it is not JSON and does not claim to be."""
        kind = self.headers.get("content-type", "*").partition(";")[0]
        try:
            body = self.http_response.json()
        except json.JSONDecodeError:
            if kind.endswith("json"):
                raise
            return self.http_response.text
        return {**_DEFAULTS, **body} if isinstance(body, dict) else body


def _is_plain(completions: Any, payload: dict[str, Any]) -> bool:
    create = type(completions).create
    own = type(create) is FunctionType and create.__globals__["__name__"].startswith("openai.")
    return own and payload.keys() <= _parameters(create)


@lru_cache
def _parameters(create: Any) -> frozenset[str]:
    return frozenset(inspect.signature(create).parameters.keys() - _OPTIONS)
