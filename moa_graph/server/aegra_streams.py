"""Streams of runs that start again on Aegra."""

from __future__ import annotations

import asyncio
import json
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RESTARTED = (
    "The process of this run ended, and another one has started the answer again. What was sent is "
    "not whole."
)
TAKES_RESTARTS = "x-takes-restarts"
"""Header of requests whose client tells the answer of a restarted run from the pieces before."""

_ROUTE = re.compile(r"(/threads/[^/]+)?/runs/stream/?")
_ERROR = {"error": "Restarted", "message": RESTARTED}
_EVENT = f"event: error\ndata: {json.dumps(_ERROR)}\n\n".encode()


class RestartedStreams:
    """ASGI middleware that ends a stream of tokens with an error event if its run starts again.

    A run whose process dies starts again in another process, and its answer from the beginning.
    Clients join the tokens of a stream, so they would take the pieces of both for one answer.
    The run goes on, as it does for other clients.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and tell the client if its run starts again."""
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if (
            scope["type"] != "http"
            or not _ROUTE.fullmatch(path)
            or TAKES_RESTARTS in Headers(scope=scope)
        ):
            await self._app(scope, receive, send)
            return
        seen: set[bytes] = set()
        ended = False

        async def sending(message: Message) -> None:
            nonlocal ended
            if ended:
                return
            events = _events(message)
            if b"metadata" in events and {b"metadata", b"messages"} <= seen:
                ended = True
                message = {"type": "http.response.body", "body": _EVENT, "more_body": False}
            seen.update(events)
            await send(message)

        async def receiving() -> Message:
            message = await receive()
            if ended:  # the client has not gone away: nothing is sent to it any more
                await asyncio.Event().wait()
            return message

        await self._app(scope, receiving, sending)


def _events(message: Message) -> set[bytes]:
    """Return the kinds of the server-sent events in a message."""
    lines = bytes(message.get("body") or b"").split(b"\n")
    names = (line[7:].strip() for line in lines if line.startswith(b"event: "))
    return {name.partition(b"|")[0] for name in names}
