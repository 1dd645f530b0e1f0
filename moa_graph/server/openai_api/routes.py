"""A Mixture-of-Agents as if it were one model: OpenAI's Chat Completions over the server's runs.

Each request is a run of the server, started over its own API with the client's own credentials: it
is traced, counted and bounded like any other, and cancelled when the client goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from moa_graph.server.openai_api.answer import Answer
from moa_graph.server.openai_api.errors import ApiError, unknown, wrong_request
from moa_graph.server.openai_api.protocol import ChatCompletionRequest
from moa_graph.server.openai_api.runs import Server, described
from moa_graph.server.users import user_of

_PATIENCE = 15.0  # seconds without a first token until the headers are sent, and between pings

T = TypeVar("T")


class _Route(APIRoute):
    """A route whose errors are in OpenAI's form, and whose clients are known."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                await run_in_threadpool(user_of, request.headers)
                _check_type(request)
                return await handle(request)
            except PermissionError as error:
                return ApiError(401, str(error), "invalid_api_key").response()
            except RequestValidationError as error:
                return wrong_request(error).response()
            except RecursionError:
                return ApiError(400, "The request is nested too deeply.").response()
            except ApiError as error:
                return error.response()

        return handler


def _check_type(request: Request) -> None:
    if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
        raise ApiError(415, "Send the request with the header Content-Type: application/json.")


router = APIRouter(prefix="/v1", route_class=_Route, tags=["OpenAI"])
"""`/v1/models` and `/v1/chat/completions`."""


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The presets, and the client's assistants: what `model` may be."""
    server = Server(request)
    return {"object": "list", "data": [described(name, a) for name, a in await server.models()]}


@router.get("/models/{model:path}")
async def model(request: Request, model: str) -> dict[str, Any]:
    """One of them."""
    for name, assistant in await Server(request).models():
        if model in (name, assistant["assistant_id"]):
            return described(name, assistant)
    raise unknown(model)


@router.post("/chat/completions")
async def chat_completions(asked: ChatCompletionRequest, request: Request) -> Response:
    """Ask a mixture; with `stream`, its aggregator's tokens come as they are made."""
    server = Server(request)
    answer = Answer(await server.start(asked), asked)
    try:
        if not asked.stream:
            return JSONResponse(await _unless_gone(request, answer.complete()))
        await _unless_gone(request, answer.begin(_PATIENCE))
    except BaseException:
        await answer.end()
        raise
    return EventSourceResponse(answer.chunks(), ping=int(_PATIENCE), sep="\n")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; it is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(499, "The client has gone away.")
    finally:
        for waiting in (task, gone):
            waiting.cancel()
        await asyncio.wait({task, gone})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
