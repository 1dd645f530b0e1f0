"""Routes of OpenAI's Chat Completions API, with a Mixture-of-Agents as the model.

Each request is a run of the server, started through the server's own API with the client's
credentials. It is traced, rate-limited and bounded like any other run, and cancelled when the
client disconnects.
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

_PATIENCE = 15.0  # seconds to wait for the first token before sending headers, and between pings

_LAST_WORDS = 5.0  # seconds to send the error of a stream that a shutdown cuts

T = TypeVar("T")


class _Route(APIRoute):
    """Route that returns errors in OpenAI's format."""

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
    """Rest of a path, including line breaks, which Starlette's converter does not match."""

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
"""Routes `/v1/models` and `/v1/chat/completions`."""


@router.get("/models", response_model=Models)
async def models(request: Request) -> dict[str, Any]:
    """List the valid values of `model`: the presets and the client's assistants."""
    server = Server(request)
    return {"object": "list", "data": [described(name, a) for name, a in await server.models()]}


@router.get("/models/{model:rest}", response_model=Model)
async def model(request: Request, model: str) -> dict[str, Any]:
    """Return one model."""
    for name, assistant in await Server(request).models():
        if model in (name, assistant["assistant_id"]):
            return described(name, assistant)
    raise unknown(model)


@router.post(
    "/chat/completions",
    responses={200: {"model": ChatCompletion, "content": {"text/event-stream": {}}}},
)
async def chat_completions(asked: ChatCompletionRequest, request: Request) -> Response:
    """Answer a request with a mixture; with `stream`, send the aggregator's tokens one by one."""
    server = Server(request)
    answer = Answer(await server.start(asked), asked)
    try:
        if not asked.stream:
            return JSONResponse(await _unless_gone(request, answer.complete()))
        await _unless_gone(request, answer.begin(_PATIENCE))
    except BaseException:
        await answer.end()
        raise
    return EventSourceResponse(
        answer.chunks(), ping=int(_PATIENCE), sep="\n", shutdown_grace_period=_LAST_WORDS
    )


@router.api_route(
    "/{path:rest}",
    methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "QUERY"],
    include_in_schema=False,
)
async def nothing_else(path: str, request: Request) -> Response:
    """Reject the other routes of OpenAI's API, which are not supported."""
    there = {"models": "GET", "chat/completions": "POST"}
    if path in there:
        message = f"/v1/{path} takes {there[path]}, not {request.method}."
        raise ApiError(405, message, headers={"Allow": there[path]})
    known = " and ".join(f"/v1/{name}" for name in there)
    raise ApiError(404, f"There is no /v1/{path} here: this server has {known}.")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work; cancel it when the client disconnects."""
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
