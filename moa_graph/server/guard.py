"""Nothing on the server is for strangers, whichever route it is."""

from __future__ import annotations

import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.settings import LOCAL_USER
from moa_graph.server.users import user_of

# Whether it lives, what it is, and the page, which asks for a key.
_PUBLIC = re.compile(r"/(ok|info|health|live|ready|docs|openapi\.json)?|/moa(/(?!markdown)[\w.]+)?")
# What `auth.py` is asked about, or is ours. The servers have more, for themselves.
_OFFERED = re.compile(r"/(assistants|threads|runs|store|v1|moa)(/.*)?")
_ITS_OWN = "/noauth"  # below which LangGraph Server asks itself; no client can say so


class Guard:
    """Lets only requests of known users through, and with keys only to what is offered.

    The servers ask `auth.py` about the routes of their API. They have others, which know no
    owner: the development server has some that show or delete every thread, or run commands. And
    Aegra answers everybody where it cannot load `auth.py`.

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
            user = await run_in_threadpool(user_of, Headers(scope=scope))
        except PermissionError as error:
            await _refuse(401, str(error), scope, receive, send)
            return
        if user != LOCAL_USER and not _OFFERED.fullmatch(_path(scope)):
            await _refuse(404, "There is nothing here.", scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_public(scope: Scope) -> bool:
    if scope.get("root_path", "").startswith(_ITS_OWN):
        return True
    if scope["type"] != "http":
        return False
    reads = scope["method"] in ("GET", "HEAD") and _PUBLIC.fullmatch(_path(scope))
    return bool(reads) or scope["method"] == "OPTIONS"  # a browser's question before its request


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _refuse(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message[:120]})
        return
    body: dict[str, Any] = {"detail": message}
    if "/v1/" in scope["path"]:  # in OpenAI's form
        said = {"message": message, "type": "invalid_request_error", "code": "invalid_api_key"}
        body = {"error": {**said, "param": None}}
    await JSONResponse(body, status)(scope, receive, send)
