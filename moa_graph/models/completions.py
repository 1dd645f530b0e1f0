"""Chat completions of OpenAI's SDK as plain data.

The SDK checks the types of each request, and makes typed objects of each response and of each
chunk, which LangChain converts to plain data again. Both take more CPU time than the rest of a
call. Here, requests and ordinary texts stay plain data.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from types import FunctionType
from typing import Any, Self

from moa_graph._compat import response_type_of

_PATH = "/chat/completions"
_OPTIONS = {"self", "extra_headers", "extra_query", "extra_body", "timeout", "response_format"}
_SECURITY = {"bearer_auth": True}  # as in the SDK: never an administrator's key
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


class PlainCompletions:
    """Takes the place of a client's `chat.completions` in LangChain's chat models.

    The requests and their errors are those of the SDK. What is not a plain request is left to the
    SDK: options of a request, unknown parameters, and all requests if a tracer has replaced one of
    its methods. Responses with more than text become the SDK's objects.

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
        """Return the completion, or the stream of its chunks."""
        if not payload.get("stream") or not _is_plain(self._client, self._typed, payload):
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
        from openai.types.chat import ChatCompletionChunk  # noqa: PLC0415 - optional

        async for chunk in self._stream:
            if isinstance(chunk, dict) and not _is_text(chunk, "delta"):
                yield ChatCompletionChunk.construct(**chunk)
            else:
                yield chunk


class _WithRawResponse:
    """Takes the place of `chat.completions.with_raw_response`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._typed = client.chat.completions
        self._response_type = response_type_of(client)

    async def create(self, **payload: Any) -> Any:
        if payload.get("stream") or not _is_plain(self._client, self._typed, payload):
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
        """Return the completion; a string if it is not JSON and does not claim to be."""
        kind = self.headers.get("content-type", "*").partition(";")[0]
        try:
            body = self.http_response.json()
        except Exception:  # as the SDK does, which tries JSON first
            if kind.endswith("json"):
                raise
            return self.http_response.text
        if not isinstance(body, dict):
            return body
        if _is_text(body, "message"):
            return _with_defaults(body)
        from openai.types.chat import ChatCompletion  # noqa: PLC0415 - optional

        return ChatCompletion.construct(**body)


def _is_plain(client: Any, completions: Any, payload: Mapping[str, Any]) -> bool:
    kind, create = type(client), type(completions).create
    replaced = {"post", "request"} & vars(client).keys() or "create" in vars(completions)
    methods = (create, kind.post, kind.request)
    return not replaced and all(map(_is_own, methods)) and payload.keys() <= _parameters(create)


def _is_own(method: Any) -> bool:
    """Return whether a method is the SDK's own, and not that of a tracer around it."""
    return type(method) is FunctionType and method.__globals__["__name__"].startswith("openai.")


@lru_cache
def _parameters(create: Any) -> frozenset[str]:
    return frozenset(inspect.signature(create).parameters.keys() - _OPTIONS)


def _is_text(body: Mapping[str, Any], part: str) -> bool:
    """Return whether a completion or a chunk is complete, and says nothing but text.

    Args:
        body: The response as JSON.
        part: The field of a choice with the text: `"message"` or `"delta"`.
    """
    choices, usage = body.get("choices"), body.get("usage")
    if not isinstance(choices, list) or body.get("error") or not isinstance(body.get("model"), str):
        return False
    return (usage is None or _is_counted(usage)) and all(_says(one, part) for one in choices)


def _says(choice: Any, part: str) -> bool:
    if not isinstance(choice, dict) or choice.get("logprobs") is not None:
        return False
    said = choice.get(part)
    if not isinstance(said, dict) or not (part == "delta" or isinstance(said.get("content"), str)):
        return False
    return all(
        value in (None, []) or (name in ("role", "content") and isinstance(value, str))
        for name, value in said.items()
    )


def _is_counted(usage: Any) -> bool:
    if not isinstance(usage, dict) or not all(type(usage.get(name)) is int for name in _COUNTS):
        return False
    details = [usage.get(name) or {} for name in _DETAILS]
    return all(
        isinstance(one, dict) and all(value is None or type(value) is int for value in one.values())
        for one in details
    )


def _with_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """Return a completion with the fields that the SDK's object always has."""
    usage = body.get("usage")
    if usage and any(map(usage.get, _DETAILS)):
        from openai.types import CompletionUsage  # noqa: PLC0415 - optional

        usage = CompletionUsage.construct(**usage).model_dump(warnings=False)
    elif usage:
        usage = {**dict.fromkeys(_DETAILS), **usage}
    choices = [{"logprobs": None, **choice} for choice in body["choices"]]
    return {"system_fingerprint": None, **body, "choices": choices, "usage": usage}
