"""Errors in the formats of OpenAI's and of Anthropic's API."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import httpx
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.types import Scope

from moa_graph.server.checks.bounds import too_many
from moa_graph.server.request_ids import HEADER

_LONGEST = 2000  # characters of a message, which may quote the request
_logger = logging.getLogger("moa_graph")
PREFIX = "/v1/"
"""Path under which the routes of all protocols are."""
_ANTHROPIC = {  # https://docs.anthropic.com/en/api/errors
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """Error response of one of the protocols.

    Args:
        status: HTTP status.
        message: What is wrong, and what to do.
        code: Machine-readable error code.
        param: Field of the request.
        headers: Headers of the response.
        details: Machine-readable details in Anthropic's format.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]} …"
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers
        self.details = details

    @property
    def openai(self) -> dict[str, Any]:
        """The body in OpenAI's format."""
        fails = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        said = {
            "message": self.message,
            "type": "server_error" if fails else "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }
        return {"error": said}

    @property
    def anthropic(self) -> dict[str, Any]:
        """The body in Anthropic's format."""
        fails = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        other = "api_error" if fails else "invalid_request_error"
        said: dict[str, Any] = {
            "type": _ANTHROPIC.get(self.status, other),
            "message": self.message,
            **({"details": self.details} if self.details else {}),
        }
        return {"type": "error", "error": said}

    def response(self, scope: Scope) -> Response:
        """Return the HTTP response to a request, in the format of the protocol of its path.

        The clients repeat requests that failed with a status of 500 or more. A run that has failed
        was paid for, and would be paid for again, so they are told not to.

        Args:
            scope: ASGI scope of the request.
        """
        below = f"{scope['path']}/".partition(PREFIX)[2]
        body = self.openai
        if below.startswith("messages/"):
            body = {**self.anthropic, "request_id": Headers(scope=scope).get(HEADER)}
        fails = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        once = {"X-Should-Retry": "false"} if fails else {}
        headers = {**once, **(self.headers or {})}
        return JSONResponse(body, self.status, headers=headers)


_KEPT = {401: "invalid_api_key", 403: None, 404: None, 413: None}
"""Statuses of the server's own API that clients are told, and their codes."""
_CLIENTS_FAULT = ("AggregationRefused", "ValueError", "ValidationError")


def as_api_error(error: Exception) -> ApiError:
    """Return an error as one of the protocols; log an unexpected one, whose text is not told."""
    if isinstance(error, ApiError):
        return error
    _logger.error("A request failed.", exc_info=error)
    return ApiError(500, "The server failed; its log says why.", "server_error")


def unknown(model: str) -> ApiError:
    """Return the error for a model name that no assistant has."""
    return ApiError(
        404,
        f"Unknown model {model!r}. GET /v1/models lists the available models.",
        "model_not_found",
        param="model",
    )


def wrong_request(
    error: RequestValidationError | ValidationError, field: str | None = None
) -> ApiError:
    """Return the error for an invalid request. It names the field and the reason.

    Args:
        error: The error of its validation.
        field: Field of the client's request, if another request made from it is invalid.
    """
    # For a union, pydantic reports an error per alternative; the deepest one is most specific.
    first = max(error.errors(), key=lambda said: (len(said["loc"]), said["type"] != "string_type"))
    if first["type"] == "json_invalid":
        return ApiError(400, "The request's body is not JSON.")
    steps = [str(step) for step in first["loc"] if step != "body" and "[" not in str(step)]
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":
        told = first["ctx"]
        said = f"must be one of {told['expected_tags']}, not {told['tag']!r:.60}"
        steps.append("type")
    if first["type"] == "too_long" and steps in (["messages"], ["input"]):
        return ApiError(413, too_many(len(first["input"])), param=field or steps[0])
    place = ".".join(steps) if field is None else ""
    return ApiError(400, f"{place}: {said}." if place else f"{said}.", param=place or None)


def refused(error: httpx.HTTPError, model: str | None = None) -> ApiError:
    """Return the error for a request that the server's own API rejected."""
    response = getattr(error, "response", None)
    if response is None:
        return ApiError(502, f"The request to the server failed: {error}.", "server_error")
    body = getattr(error, "body", None)
    said = body if isinstance(body, dict) else {}
    message = str(said.get("detail") or said.get("message") or error)
    if response.status_code == HTTPStatus.NOT_FOUND and model:
        return unknown(model)
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        wait = {"Retry-After": response.headers.get("Retry-After", "60")}
        return ApiError(429, message, "rate_limit_exceeded", headers=wait)
    if response.status_code in _KEPT:
        return ApiError(response.status_code, message, _KEPT[response.status_code])
    if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiError(400, message)
    return ApiError(502, message, "server_error")


def failed(said: Any) -> ApiError:
    """Return the error for a failed run."""
    said = said if isinstance(said, dict) else {}
    kind, message = str(said.get("error", "")), str(said.get("message") or "The run failed.")
    if kind in _CLIENTS_FAULT:
        return ApiError(400, message)
    return ApiError(502, message, kind or None)
