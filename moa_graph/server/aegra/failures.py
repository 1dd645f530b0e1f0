"""Aegra's responses to requests that failed in the database."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph.server.protocols.errors import PREFIX


class PlainFailures:
    """ASGI middleware that does not tell clients what a failure of the server says.

    Aegra's responses have the statement of the database, with its parameters. Its log has it, too.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and replace the body of a failure."""
        if scope["type"] != "http" or PREFIX in scope["path"]:
            await self._app(scope, receive, send)
            return
        failed = False

        async def sending(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = message["status"] == HTTPStatus.INTERNAL_SERVER_ERROR
                if failed:
                    said = {"detail": "The server failed; its log says why."}
                    await JSONResponse(said, message["status"])(scope, receive, send)
            if not failed:
                await send(message)

        await self._app(scope, receive, sending)
