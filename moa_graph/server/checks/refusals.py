"""Responses to requests that the server refuses before they reach a route."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from moa_graph.server.checks.bounds import TooLarge
from moa_graph.server.protocols.errors import PREFIX, ApiError

_LONGEST_REASON = 120  # bytes; WebSocket takes at most 123


class Refused(Exception):
    """Error for a request that the server refuses.

    Args:
        status: HTTP status.
        message: What is wrong, and what to do.
        headers: Headers of the response.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: ValueError | RecursionError) -> Refused:
        """Return the refusal of a request that exceeds a bound or is not valid."""
        if isinstance(error, RecursionError):
            return cls(HTTPStatus.UNPROCESSABLE_ENTITY, "The request is nested too deeply.")
        large = isinstance(error, TooLarge)
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if large else HTTPStatus.UNPROCESSABLE_ENTITY
        return cls(status, str(error))


async def refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the response to a refused request, in the format of its protocol below `/v1`."""
    if scope["type"] == "websocket":
        reason = refused.message.encode()[:_LONGEST_REASON].decode(errors="ignore")
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    response: Response
    if PREFIX in scope["path"]:
        code = "invalid_api_key" if refused.status == HTTPStatus.UNAUTHORIZED else None
        error = ApiError(refused.status, refused.message, code, headers=refused.headers)
        response = error.response(scope)
    else:
        response = JSONResponse({"detail": refused.message}, refused.status, refused.headers)
    await response(scope, receive, send)
