"""Bounds of requests, checked before they reach the servers' routes."""

from __future__ import annotations

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph.server.protocols.errors import ApiError, refusal
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
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal():
            if int(length) > SETTINGS.max_bytes:
                await _too_large(scope, receive, send)
                return
        elif (body := await body_of(receive)) is None:
            await _too_large(scope, receive, send)
            return
        else:
            receive = given_again(body, receive)
        if scope["path"].endswith("/runs/batch"):
            body = await body_of(receive)
            receive = given_again(body or b"", receive)
            current_batch.set(Batch(_items(body or b"")))
        await self._app(scope, receive, send)


async def body_of(receive: Receive) -> bytes | None:
    """Return the body; None as soon as it exceeds the bound."""
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


def given_again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, and then what follows it."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def _items(body: bytes) -> list[Any]:
    try:
        read: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return read if isinstance(read, list) else []


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    said = f"The request has more than {SETTINGS.max_bytes:,} bytes (MOA_MAX_BYTES)."
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    closes = {"Connection": "close"}
    await refusal(scope, ApiError(status, said, headers=closes))(scope, receive, send)
