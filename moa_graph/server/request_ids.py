"""Request ids, for logs of several servers: taken from the client, or made here."""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_USABLE = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


class RequestIds:
    """ASGI middleware that gives each request an id, in the header `X-Request-ID`.

    The id of the client or of a proxy is kept. The response has the same id, also in the header
    `request-id`, which Anthropic's clients read.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with its id to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        this = given if _USABLE.fullmatch(given) else uuid4().hex
        MutableHeaders(scope=scope)[HEADER] = this

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = this
                if "/v1/" in scope["path"]:
                    headers["request-id"] = this
            await send(message)

        await self._app(scope, receive, sending)
