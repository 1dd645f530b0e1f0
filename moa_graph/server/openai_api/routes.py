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
from openai.types import Model
from openai.types.chat import ChatCompletion
from sse_starlette import EventSourceResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from moa_graph.server.openai_api.answer import Answer
from moa_graph.server.openai_api.errors import ApiError, unknown, wrong_request
from moa_graph.server.openai_api.protocol import ChatCompletionRequest, Error, Models
from moa_graph.server.openai_api.runs import Server, described

_PATIENCE = 15.0  # seconds without a first token until the headers are sent, and between pings

T = TypeVar("T")


class _Route(APIRoute):
    """A route whose errors are in OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, takes_body = super().get_route_handler(), self.body_field is not None

        async def handler(request: Request) -> Response:
            try:
                if takes_body:
                    _check_type(request)
                return await handle(request)
            except RequestValidationError as error:
                return wrong_request(error).response()
            except HTTPException as error:
                return ApiError(error.status_code, f"{error.detail}.").response()
            except RecursionError:
                return ApiError(400, "The request is nested too deeply.").response()
            except ApiError as error:
                return error.response()

        return handler


class _Rest(PathConvertor):
    """The rest of a path, line ends too, at which Starlette's own stops."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


def _check_type(request: Request) -> None:
    if "json" not in request.headers.get("content-type", ""):
        raise ApiError(415, "Send the request with the header Content-Type: application/json.")


router = APIRouter(
    prefix="/v1",
    route_class=_Route,
    tags=["OpenAI"],
    responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
)
"""`/v1/models` and `/v1/chat/completions`."""


@router.get("/models", response_model=Models)
async def models(request: Request) -> dict[str, Any]:
    """The presets, and the client's assistants: what `model` may be."""
    server = Server(request)
    return {"object": "list", "data": [described(name, a) for name, a in await server.models()]}


@router.get("/models/{model:rest}", response_model=Model)
async def model(request: Request, model: str) -> dict[str, Any]:
    """One of them."""
    for name, assistant in await Server(request).models():
        if model in (name, assistant["assistant_id"]):
            return described(name, assistant)
    raise unknown(model)


@router.post(
    "/chat/completions",
    responses={200: {"model": ChatCompletion, "content": {"text/event-stream": {}}}},
)
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


@router.api_route(
    "/{path:rest}",
    methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "QUERY"],
    include_in_schema=False,
)
async def nothing_else(path: str, request: Request) -> Response:
    """The rest of OpenAI's API is not here."""
    there = {"models": "GET", "chat/completions": "POST"}
    if path in there:
        message = f"/v1/{path} takes {there[path]}, not {request.method}."
        raise ApiError(405, message, headers={"Allow": there[path]})
    known = " and ".join(f"/v1/{name}" for name in there)
    raise ApiError(404, f"There is no /v1/{path} here: this server has {known}.")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what the work gives; it is cancelled when the client goes away."""
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
