"""Streams of runs on Aegra, with the ends that LangGraph Server's have."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph.server.guard import path_of
from moa_graph.server.itself import Itself

RESTARTED = (
    "The process of this run ended, and another one has started the answer again. What was sent is "
    "not whole."
)
TAKES_RESTARTS = "x-takes-restarts"
"""Header of requests whose client tells the answer of a restarted run from the pieces before."""

_ROUTE = re.compile(r"(/threads/[^/]+)?/runs(/[^/]+)?/stream/?")
_EVENT = "event: error\ndata: {}\n\n"


class AegraStreams:
    """ASGI middleware for the errors of streams of runs.

    - Aegra's events name the type of an error, but only the record of the run has its message,
      which is added here. The record is there until the event was sent.
    - A run whose process dies starts again in another process, and its answer from the beginning.
      Clients join the tokens of a stream, so they would take the pieces of both for one answer.
      The stream ends with an error event instead; the run goes on.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and complete the events of its stream."""
        if scope["type"] != "http" or not _ROUTE.fullmatch(path_of(scope)):
            await self._app(scope, receive, send)
            return
        stream = _Stream(scope, receive, send)
        await self._app(scope, stream.receive, stream.send)


class _Stream:
    """One stream."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._scope = scope
        # A request that joins a run may get the events of several starts that are over.
        self._takes_restarts = scope["method"] != "POST" or TAKES_RESTARTS in Headers(scope=scope)
        self._run = ""  # path of the run
        self._seen: set[bytes] = set()
        self._ended = False

    async def send(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self._run = Headers(raw=message["headers"]).get("content-location", "")
        events = _events(message)
        if b"metadata" in events and {b"metadata", b"messages"} <= self._seen:
            if not self._takes_restarts:
                self._ended = True
                error = json.dumps({"error": "Restarted", "message": RESTARTED})
                body = _EVENT.format(error).encode()
                message = {"type": "http.response.body", "body": body, "more_body": False}
        elif b"error" in events and self._run:
            message = {**message, "body": await self._with_reason(bytes(message["body"]))}
        self._seen |= events
        await self._send(message)

    async def receive(self) -> Message:
        message = await self._receive()
        if self._ended:  # the client has not gone away: nothing is sent to it any more
            await asyncio.Event().wait()
        return message

    async def _with_reason(self, event: bytes) -> bytes:
        """Return the event of an error with the message that the record of the run has."""
        itself = Itself(self._scope)
        try:
            run = await itself.http.get(self._run, headers=itself.headers)
            reason = run.raise_for_status().json()["error_message"]
            error = json.loads(event.partition(b"\ndata: ")[2].partition(b"\n")[0])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return event
        if not reason:
            return event
        return _EVENT.format(json.dumps({**error, "message": reason})).encode()


def _events(message: Message) -> set[bytes]:
    """Return the kinds of the server-sent events in a message."""
    lines = bytes(message.get("body") or b"").split(b"\n")
    names = (line[7:].strip() for line in lines if line.startswith(b"event: "))
    return {name.partition(b"|")[0] for name in names}
