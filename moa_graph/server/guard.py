"""Nothing on the server is for strangers, whichever route it is."""

from __future__ import annotations

import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.users import user_of

# Whether it lives, what it is, and the page, which asks for a key.
_PUBLIC = re.compile(r"/(ok|info|health|live|ready|docs|openapi\.json)?|/moa(/(?!markdown)[\w.]+)?")
_ITS_OWN = "/noauth"  # below which LangGraph Server asks itself; no client can say so


class Guard:
    """Lets only requests of known users through.

    The servers ask `auth.py` about the routes of their API. They have others: the development
    server has some that delete all threads, or run commands. And Aegra answers everybody where it
    cannot load `auth.py`.

    Args:
        app: What is guarded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's."""
        if scope["type"] == "lifespan" or _is_public(scope):
            await self._app(scope, receive, send)
            return
        try:
            await run_in_threadpool(user_of, Headers(scope=scope))
        except PermissionError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:120]})
            else:
                await _refusal(scope["path"], str(error))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_public(scope: Scope) -> bool:
    if scope.get("root_path", "").startswith(_ITS_OWN):
        return True
    if scope["type"] != "http":
        return False
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    reads = scope["method"] in ("GET", "HEAD") and _PUBLIC.fullmatch(path)
    return bool(reads) or scope["method"] == "OPTIONS"  # a browser's question before its request


def _refusal(path: str, message: str) -> JSONResponse:
    if "/v1/" in path:  # in OpenAI's form
        said = {"message": message, "type": "invalid_request_error", "code": "invalid_api_key"}
        return JSONResponse({"error": {**said, "param": None}}, 401)
    return JSONResponse({"detail": message}, 401)
