"""Errors in OpenAI's format."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from moa_graph.server.bounds import too_many


class ApiError(Exception):
    """Error response in OpenAI's format.

    Args:
        status: HTTP status.
        message: What is wrong, and what to do.
        code: Machine-readable error code.
        param: Field of the request.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error"
                if status < HTTPStatus.INTERNAL_SERVER_ERROR
                else "server_error",
                "param": param,
                "code": code,
            }
        }

    def response(self) -> Response:
        """Return the HTTP response.

        OpenAI's clients repeat requests that failed with a status of 500 or more. A run that has
        failed was paid for, and would be paid for again, so they are told not to.
        """
        fails = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        once = {"X-Should-Retry": "false"} if fails else {}
        return JSONResponse(self.body, self.status, headers={**once, **(self.headers or {})})


_CLIENTS_FAULT = ("AggregationRefused", "ValueError", "ValidationError")


def unknown(model: str) -> ApiError:
    """Return the error for a model name that no assistant has."""
    return ApiError(
        404,
        f"Unknown model {model!r}. GET /v1/models lists the available models.",
        "model_not_found",
        param="model",
    )


def wrong_request(error: RequestValidationError) -> ApiError:
    """Return the error for an invalid request. It names the field and the reason."""
    # For a union, pydantic reports an error per alternative; the deepest one is most specific.
    first = max(error.errors(), key=lambda said: len(said["loc"]))
    if first["type"] == "json_invalid":
        return ApiError(400, "The request's body is not JSON.")
    steps = [str(step) for step in first["loc"] if step != "body" and "[" not in str(step)]
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = "this field is unknown or not supported"
    if first["type"] == "too_long" and steps == ["messages"]:
        return ApiError(413, too_many(len(first["input"])), param="messages")
    place = ".".join(steps)
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
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return ApiError(401, message, "invalid_api_key")
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
