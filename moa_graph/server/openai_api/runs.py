"""Calls from the OpenAI-compatible endpoint to this server's own API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import httpx
from fastapi import FastAPI, Request
from langchain_core.messages import convert_to_messages
from langgraph_sdk.client import LangGraphClient

from moa_graph.presets import PRESETS
from moa_graph.server.assistants import check_given
from moa_graph.server.openai_api.errors import ApiError, refused, unknown
from moa_graph.server.openai_api.protocol import (
    ChatCompletionRequest,
    TextFormat,
    ToolChoice,
    given,
)
from moa_graph.server.settings import SETTINGS

try:  # LangGraph Server's transport; httpx's does not stream
    from langgraph_api.asgi_transport import ASGITransport as _ASGITransport
except ImportError:
    _ASGITransport = None

_PAGE = 100  # assistants per search request
_CREDENTIALS = ("authorization", "x-api-key")

T = TypeVar("T")


class Server:
    """Client of this server's own API, with the credentials of a request."""

    def __init__(self, request: Request) -> None:
        self._client = _client(*_way_to_itself(request))
        self._headers = {
            name: request.headers[name] for name in _CREDENTIALS if name in request.headers
        }

    async def models(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the available assistants with their model names."""
        found: list[Any] = []
        while len(found) % _PAGE == 0:
            page = await self._told(
                self._client.assistants.search(
                    limit=_PAGE, offset=len(found), headers=self._headers
                )
            )
            if not page:
                break
            found += page
        return _names(found)

    async def start(self, asked: ChatCompletionRequest) -> AsyncGenerator[Any, None]:
        """Return the events of a run that answers the request. Reading the first one starts it."""
        question = input_of(asked)
        assistant = await self._assistant(asked.model)
        return self._events(assistant, question, asked)

    async def _events(
        self, assistant: str, question: dict[str, Any], asked: ChatCompletionRequest
    ) -> AsyncGenerator[Any, None]:
        events = self._client.runs.stream(
            None,
            assistant,
            input=question,
            context=context_of(asked),
            metadata={**(asked.metadata or {}), **({"user": asked.user} if asked.user else {})},
            stream_mode=["messages-tuple", "updates"],
            on_disconnect="cancel",
            headers=self._headers,
        )
        try:
            async for event in events:
                yield event
        except httpx.HTTPError as error:
            raise refused(error, asked.model) from error
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    async def _assistant(self, model: str) -> str:
        if model in PRESETS:
            return model  # each preset is a graph, with an assistant of the same name
        try:
            return str(UUID(model))
        except ValueError:
            pass
        found = await self._told(
            self._client.assistants.search(name=model, limit=_PAGE, headers=self._headers)
        )
        for assistant in found:
            if assistant["name"] == model:
                return str(assistant["assistant_id"])
        raise unknown(model)

    async def _told(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except httpx.HTTPError as error:
            raise refused(error) from error


def _way_to_itself(request: Request) -> tuple[str, FastAPI | None]:
    """Return this server's URL, and its application if it can be called without a connection."""
    host, port = request.scope["server"]
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}{request.scope.get('root_path', '')}"
    return address, request.app if _ASGITransport else None


@lru_cache(maxsize=4)
def _client(address: str, app: FastAPI | None) -> LangGraphClient:
    transport: httpx.AsyncBaseTransport
    if app is not None:
        transport = _ASGITransport(app)
    else:
        transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            verify=False,  # plain HTTP to this process
        )
    timeout = httpx.Timeout(30, read=None)  # seconds; a run may take any time
    return LangGraphClient(
        httpx.AsyncClient(base_url=address, transport=transport, timeout=timeout)
    )


def _names(assistants: list[Any]) -> list[tuple[str, Any]]:
    """Return assistants with their names, or their ids if a name is already taken."""
    named: dict[str, Any] = {}
    for assistant in sorted(assistants, key=lambda a: not _is_system(a)):
        name = assistant["graph_id"] if _is_system(assistant) else assistant["name"]
        if not _is_usable(name, assistant):
            continue
        named[assistant["assistant_id"] if not name or name in named else name] = assistant
    return list(named.items())


def _is_usable(name: str, assistant: Any) -> bool:
    """Return whether this server allows the models and the size of an assistant."""
    if _is_system(assistant) and name in PRESETS:
        return all(map(SETTINGS.allows, PRESETS[name].models()))
    configured = (assistant.get("config") or {}).get("configurable") or {}
    try:
        check_given({**configured, **(assistant.get("context") or {})}, whole=True)
    except ValueError:
        return False
    return True


def _is_system(assistant: Any) -> bool:
    return (assistant.get("metadata") or {}).get("created_by") == "system"


def described(name: str, assistant: Any) -> dict[str, Any]:
    """Return an assistant as a model object of OpenAI's API."""
    return {
        "id": name,
        "object": "model",
        "created": _seconds(assistant.get("created_at")),
        "owned_by": "system" if _is_system(assistant) else "user",
    }


def _seconds(moment: Any) -> int:
    try:
        return int(datetime.fromisoformat(str(moment)).timestamp())
    except ValueError:
        return 0


def input_of(asked: ChatCompletionRequest) -> dict[str, Any]:
    """Return the input of the graph.

    Raises:
        ApiError: If the messages are not a valid conversation.
    """
    # OpenAI's tool-call messages may omit the content; LangChain requires an empty string.
    messages = [
        {"content": "", **message.model_dump(exclude_none=True)} for message in asked.messages
    ]
    try:
        convert_to_messages(messages)
    except Exception as error:
        said = str(error).splitlines()[0]
        raise ApiError(400, f"messages: {said}", param="messages") from error
    return {"messages": messages}


def context_of(asked: ChatCompletionRequest) -> dict[str, Any]:
    """Return the settings of the run. All of them apply to the aggregator."""
    choice: str | None = None
    if isinstance(asked.tool_choice, ToolChoice):
        choice = asked.tool_choice.function.name
    elif asked.tool_choice is not None:
        choice = {"required": "any"}.get(asked.tool_choice, asked.tool_choice)  # LangChain's term
    form = asked.response_format
    if form is None or isinstance(form, TextFormat):
        response_format = None
    else:
        response_format = form.model_dump(exclude_none=True, by_alias=True)
    options = {
        "tools": [tool.model_dump(exclude_none=True) for tool in asked.tools or ()] or None,
        "tool_choice": choice if asked.tools else None,
        "parallel_tool_calls": asked.parallel_tool_calls if asked.tools else None,
        "response_format": response_format,
        "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop or None,
        "top_p": asked.top_p,
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
        "seed": asked.seed,
    }
    # The last call of a client's tool loop may come without tools.
    continues = not asked.tools and any(m.role == "tool" for m in asked.messages)
    context = {
        "consult": "turn" if continues else None,
        "aggregator_temperature": asked.temperature,
        "aggregator_max_tokens": asked.max_completion_tokens or asked.max_tokens,
        "aggregator_options": given(options) or None,
    }
    return given(context)
