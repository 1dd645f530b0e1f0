"""Bounds of requests, checked before they reach the servers' routes."""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph.server.checks.refusals import Refused, refuse
from moa_graph.server.settings import SETTINGS

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


@dataclass
class Batch:
    """The runs that one request starts.

    Args:
        runs: The requests of the runs.
        allowed: Whether all of them may start; None if this was not checked yet.
        lock: Held while it is checked.
    """

    runs: list[Any]
    allowed: bool | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


current_batch: ContextVar[Batch | None] = ContextVar("current_batch", default=None)
"""The batch that the current request starts; None for other requests."""


class BodyBound:
    """ASGI middleware that refuses bodies above `MOA_MAX_BYTES`, before they are read whole.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the size of a request, then pass it to the application."""
        if not has_body(scope):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal():
            if int(length) > SETTINGS.max_bytes:
                await _too_large(scope, receive, send)
                return
        elif (body := await read_body(receive)) is None:
            await _too_large(scope, receive, send)
            return
        else:
            receive = again(body, receive)
        if scope["path"].endswith("/runs/batch"):
            body = await read_body(receive)
            receive = again(body or b"", receive)
            current_batch.set(Batch(_items(body or b"")))
        await self._app(scope, receive, send)


def has_body(scope: Scope) -> bool:
    """Return whether a request may have a body."""
    return scope["type"] == "http" and scope["method"] not in _WITHOUT_BODY


async def read_body(receive: Receive) -> bytes | None:
    """Return the body of a request; None as soon as it exceeds `MOA_MAX_BYTES`."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > SETTINGS.max_bytes:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, and then what follows it.

    Args:
        body: The body.
        receive: The one that it was read from.
    """
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def parsed(body: bytes) -> Any:
    """Return the JSON of a body as the servers read it; None if no server can read it."""
    try:
        return orjson.loads(body)  # LangGraph Server
    except ValueError:
        pass
    try:
        return json.loads(body)  # Aegra, which reads other encodings, too
    except (ValueError, RecursionError):
        return None


def _items(body: bytes) -> list[Any]:
    read = parsed(body)
    return read if isinstance(read, list) else []


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    said = f"The request has more than {SETTINGS.max_bytes:,} bytes (MOA_MAX_BYTES)."
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    await refuse(Refused(status, said, {"Connection": "close"}), scope, receive, send)
