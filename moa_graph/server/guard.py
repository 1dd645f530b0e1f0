"""Authentication for every route of the server."""

from __future__ import annotations

import hmac
import re
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.protocols.errors import ApiError, refusal
from moa_graph.server.settings import LOCAL_USER, SETTINGS
from moa_graph.server.users import user_of

# Health checks, server information, and the live page, which asks for a key itself.
_PUBLIC = re.compile(r"/(ok|info|health|live|ready|docs|openapi\.json)?|/moa(/(?!markdown)[\w.]+)?")
# Routes that `auth.py` handles, and our own. The servers have other, internal routes.
_OFFERED = re.compile(r"/(assistants|threads|runs|store|v1|moa)(/.*)?")
METRICS = "/metrics"
_ITS_OWN = "/noauth"  # root path of LangGraph Server's calls to itself; clients cannot set it


class Guard:
    """ASGI middleware that rejects unknown users, and limits API keys to the public API.

    The servers call `auth.py` only for the routes of their API. Other routes do not check the
    owner: some routes of the development server show or delete every thread, or run commands.
    Aegra also answers every request without authentication if it cannot load `auth.py`.

    Args:
        app: ASGI application to protect.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it to the application."""
        if scope["type"] == "lifespan" or _is_public(scope):
            await self._app(scope, receive, send)
            return
        if _path(scope) == METRICS and reads_metrics(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        try:
            user = await run_in_threadpool(user_of, Headers(scope=scope))
        except PermissionError as error:
            await _refuse(401, str(error), scope, receive, send)
            return
        if user != LOCAL_USER and not _OFFERED.fullmatch(_path(scope)):
            await _refuse(404, "Not found.", scope, receive, send)
            return
        await self._app(scope, receive, send)


def reads_metrics(headers: Headers) -> bool:
    """Return whether a request has the token for the metrics (`MOA_METRICS_TOKEN`)."""
    token = SETTINGS.metrics_token.get_secret_value()
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if not token or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())


def _is_public(scope: Scope) -> bool:
    if scope.get("root_path", "").startswith(_ITS_OWN):
        return True
    if scope["type"] != "http":
        return False
    reads = scope["method"] in ("GET", "HEAD") and _PUBLIC.fullmatch(_path(scope))
    return bool(reads) or scope["method"] == "OPTIONS"  # a browser's CORS preflight


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _refuse(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message[:120]})
        return
    code = "invalid_api_key" if status == HTTPStatus.UNAUTHORIZED else None
    await refusal(scope, ApiError(status, message, code))(scope, receive, send)
