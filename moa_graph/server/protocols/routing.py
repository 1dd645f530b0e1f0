"""What the routes of all protocols share: errors, ignored fields, and clients that disconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sse_starlette import EventSourceResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from moa_graph.server.protocols.errors import ApiError, as_api_error, wrong_request
from moa_graph.server.protocols.fields import drop_unknown
from moa_graph.server.protocols.reply import Reply
from moa_graph.server.settings import SETTINGS

_PATIENCE = 15.0  # seconds to wait for the first token before sending headers, and between pings
_LAST_WORDS = 5.0  # seconds to send the error of a stream that a shutdown cuts
_MOST_NAMED = 20  # ignored fields that a response names
_LONGEST_NAME = 100  # characters

T = TypeVar("T")


class Route(APIRoute):
    """Route that returns errors in the format of its protocol."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handle, takes_body = super().get_route_handler(), self.body_field is not None

        async def handler(request: Request) -> Response:
            try:
                if takes_body:
                    _check_type(request)
                return await handle(request)
            except RequestValidationError as error:
                said = wrong_request(error)
            except HTTPException as error:
                said = ApiError(error.status_code, f"{error.detail}.")
            except RecursionError:
                said = ApiError(400, "The request is nested too deeply.")
            except Exception as error:  # noqa: BLE001 - the client gets its protocol's format
                said = as_api_error(error)
            return said.response(request.scope)

        return handler


class _Rest(PathConvertor):
    """Rest of a path, including line breaks, which Starlette's converter does not match."""

    regex = "(?s:.*)"


register_url_convertor("rest", _Rest())


def _check_type(request: Request) -> None:
    if "json" not in request.headers.get("content-type", ""):
        raise ApiError(415, "Send the request with the header Content-Type: application/json.")


def ignored_fields(asked: BaseModel) -> list[str]:
    """Remove the unknown fields of a request, and return their places.

    Raises:
        ApiError: If there are any, and `MOA_STRICT` is set.
    """
    names = list(drop_unknown(asked))
    if names and SETTINGS.strict:
        raise ApiError(400, f"{names[0]}: this field is unknown or not supported.", param=names[0])
    return names


def warning(names: Iterable[str]) -> dict[str, str]:
    """Return the header that names ignored fields; nothing if there are none."""
    short = [name[:_LONGEST_NAME] for name in dict.fromkeys(names)]
    if not short:
        return {}
    more = ["…"] if len(short) > _MOST_NAMED else []
    listed = json.dumps(", ".join([*short[:_MOST_NAMED], *more]))[1:-1]
    return {"Warning": f'299 moa-graph "Ignored: {listed}"'}


async def respond(
    request: Request,
    reply: Reply,
    answer: Any,
    *,
    stream: bool,
    ignored: list[str],
) -> Response:
    """Return the response to a request, as a whole or as a stream.

    Args:
        request: The request.
        reply: The reply of its run.
        answer: The answer of the protocol, with the methods `whole` and `events`.
        stream: Whether to stream it.
        ignored: Places of ignored fields.

    Raises:
        ApiError: If the run fails before the first token, or the client disconnects.
    """
    try:
        if not stream:
            await unless_gone(request, reply.whole())
            headers = warning([*ignored, *reply.dropped])
            text = json.dumps(answer.whole(), ensure_ascii=False, separators=(",", ":"))
            return Response(text, media_type="application/json", headers=headers)
        await unless_gone(request, reply.begin(_PATIENCE))
    except BaseException:
        await reply.end()
        raise
    events: AsyncGenerator[dict[str, str], None] = answer.events()
    return EventSourceResponse(
        events,
        headers=warning(ignored),
        ping=int(_PATIENCE),
        sep="\n",
        shutdown_grace_period=_LAST_WORDS,
    )


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work; cancel it when the client disconnects.

    Raises:
        ApiError: If the client disconnects.
    """
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
