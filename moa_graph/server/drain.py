"""End streams at a shutdown: those in flight may finish, and what is cut is told to the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph._compat import uvicorn_is_stopping
from moa_graph.server.background import beside
from moa_graph.server.settings import SETTINGS

MESSAGE = "The server is shutting down, and this run was cut. Its answer is not whole."
_POLL = 0.2  # seconds
_ERROR = {"error": "Shutdown", "message": MESSAGE}
_EVENT = f"event: error\ndata: {json.dumps(_ERROR)}\n\n".encode()

cut = asyncio.Event()
"""Set when the time to finish is over, and streams end."""


def is_draining() -> bool:
    """Return whether the server was told to stop."""
    return uvicorn_is_stopping()


@asynccontextmanager
async def draining() -> AsyncIterator[None]:
    """Let streams finish within `MOA_DRAIN_SECONDS` when the server is told to stop.

    The server accepts no new connections by then.
    """
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
    async with beside(_watch()):
        yield


async def _watch() -> None:
    while not uvicorn_is_stopping():  # noqa: ASYNC110 - a signal sets no event
        await asyncio.sleep(_POLL)
    await asyncio.sleep(SETTINGS.drain_seconds)
    cut.set()
    AppStatus.should_exit = True


class ToldEnds:
    """ASGI middleware that ends a stream of events which a shutdown cuts with an error event.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and tell the client if its stream was cut."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streams = ended = False

        async def sending(message: Message) -> None:
            nonlocal streams, ended
            if message["type"] == "http.response.start":
                kind = dict(message.get("headers") or ()).get(b"content-type", b"")
                streams = kind.startswith(b"text/event-stream")
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                ended = True
                # The streams below /v1 tell it in the formats of their protocols.
                if streams and cut.is_set() and "/v1/" not in scope["path"]:
                    message = {**message, "body": bytes(message.get("body") or b"") + _EVENT}
            await send(message)

        await self._app(scope, receive, sending)
        if streams and not ended and cut.is_set():
            await send({"type": "http.response.body", "body": _EVENT, "more_body": False})
