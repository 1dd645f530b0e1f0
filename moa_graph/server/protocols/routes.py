"""Routes of OpenAI's and of Anthropic's API, with a Mixture-of-Agents as the model.

Each request is a run of the server, started through the server's own API with the client's
credentials. It is traced, rate-limited and bounded like any other run, and cancelled when the
client disconnects.
"""

from __future__ import annotations

from typing import Any

from anthropic.types import Message
from fastapi import APIRouter, Request, Response
from openai.types.chat import ChatCompletion
from openai.types.responses import Response as ResponseObject

from moa_graph.server.protocols.chat_completions.answer import ChatCompletionAnswer
from moa_graph.server.protocols.chat_completions.request import (
    ChatCompletionRequest,
    Error,
    ModelObject,
    Models,
)
from moa_graph.server.protocols.errors import ApiError, unknown
from moa_graph.server.protocols.messages.answer import MessageAnswer
from moa_graph.server.protocols.messages.request import MessagesError, MessagesRequest
from moa_graph.server.protocols.reply import Reply
from moa_graph.server.protocols.responses.answer import ResponseAnswer
from moa_graph.server.protocols.responses.request import ResponsesRequest
from moa_graph.server.protocols.responses.stored import Keeper, StoredResponses, new_id, thread_of
from moa_graph.server.protocols.routing import Route, ignored_fields, respond
from moa_graph.server.protocols.runs import Server, described

_STREAM: dict[str, Any] = {"text/event-stream": {}}

router = APIRouter(
    prefix="/v1",
    route_class=Route,
    responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
)
"""Routes `/v1/models`, `/v1/chat/completions`, `/v1/responses` and `/v1/messages`."""


@router.get("/models", response_model=Models, tags=["OpenAI", "Anthropic"])
async def models(request: Request) -> dict[str, Any]:
    """List the valid values of `model`: the presets and the client's assistants."""
    listed = [described(name, found) for name, found in await Server(request).models()]
    names = [listed[0]["id"], listed[-1]["id"]] if listed else [None, None]
    return {"data": listed, "first_id": names[0], "last_id": names[1]}


@router.get("/models/{model:rest}", response_model=ModelObject, tags=["OpenAI", "Anthropic"])
async def model(request: Request, model: str) -> dict[str, Any]:
    """Return one model."""
    for name, assistant in await Server(request).models():
        if model in (name, assistant["assistant_id"]):
            return described(name, assistant)
    raise unknown(model)


@router.post(
    "/chat/completions",
    responses={200: {"model": ChatCompletion, "content": _STREAM}},
    tags=["OpenAI"],
)
async def chat_completions(asked: ChatCompletionRequest, request: Request) -> Response:
    """Answer a request with a mixture; with `stream`, send the aggregator's tokens one by one."""
    ignored = ignored_fields(asked)
    reply = Reply(await Server(request).start(asked))
    answer = ChatCompletionAnswer(reply, asked)
    return await respond(request, reply, answer, stream=bool(asked.stream), ignored=ignored)


@router.post(
    "/responses",
    responses={200: {"model": ResponseObject, "content": _STREAM}},
    tags=["OpenAI"],
)
async def responses(asked: ResponsesRequest, request: Request) -> Response:
    """Answer a request with a mixture, and keep the response unless `store` is false."""
    ignored = ignored_fields(asked)
    server = Server(request)
    stored, response = StoredResponses(server), new_id()
    before: list[dict[str, Any]] = []
    if asked.previous_response_id:
        before = (await stored.get(asked.previous_response_id)).messages()
    chat = asked.chat(before, await stored.referred(asked.items))
    thread = thread_of(response) if asked.is_stored else None
    events = await server.start(chat, thread)
    reply = Reply(events, Keeper(stored, response, asked) if asked.is_stored else None)
    answer = ResponseAnswer.to(reply, asked, response)
    return await respond(request, reply, answer, stream=bool(asked.stream), ignored=ignored)


@router.get("/responses/{response}", response_model=ResponseObject, tags=["OpenAI"])
async def stored_response(response: str, request: Request) -> Any:
    """Return a stored response."""
    return ResponseAnswer.of(await StoredResponses(Server(request)).get(response)).whole()


@router.delete("/responses/{response}", tags=["OpenAI"])
async def delete_response(response: str, request: Request) -> dict[str, Any]:
    """Delete a stored response."""
    await StoredResponses(Server(request)).delete(response)
    return {"id": response, "object": "response", "deleted": True}


@router.post(
    "/messages",
    responses={
        200: {"model": Message, "content": _STREAM},
        "4XX": {"model": MessagesError},
        "5XX": {"model": MessagesError},
    },
    tags=["Anthropic"],
)
async def messages(asked: MessagesRequest, request: Request) -> Response:
    """Answer a request with a mixture; with `stream`, send the aggregator's tokens one by one."""
    ignored = ignored_fields(asked)
    reply = Reply(await Server(request).start(asked.chat()))
    answer = MessageAnswer(reply, asked)
    return await respond(request, reply, answer, stream=bool(asked.stream), ignored=ignored)


_METHODS = {
    "models": "GET",
    "chat/completions": "POST",
    "responses": "POST",
    "messages": "POST",
}


@router.api_route(
    "/{path:rest}",
    methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "QUERY"],
    include_in_schema=False,
)
async def nothing_else(path: str, request: Request) -> Response:
    """Reject the other routes of these APIs, which are not supported."""
    if path in _METHODS:
        message = f"/v1/{path} takes {_METHODS[path]}, not {request.method}."
        raise ApiError(405, message, headers={"Allow": _METHODS[path]})
    *first, last = (f"/v1/{name}" for name in _METHODS)
    raise ApiError(
        404, f"There is no /v1/{path} here: this server has {', '.join(first)} and {last}."
    )
