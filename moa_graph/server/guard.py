"""Authentication for every route of the server."""

from __future__ import annotations

import hmac
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.checks.refusals import Refused, refuse
from moa_graph.server.settings import LOCAL_USER, SETTINGS
from moa_graph.server.users import user_of

# Health checks, server information, and the files of the live page, which asks for a key itself.
_PUBLIC = re.compile(r"/(ok|info|health|live|ready|docs|openapi\.json)?|/moa(/\w+\.(js|css|svg))?")
# Routes that `auth.py` handles, and our own. The servers have other, internal routes.
_OWN = "v1|moa|mcp" if SETTINGS.mcp else "v1|moa"
_OFFERED = re.compile(rf"/(assistants|threads|runs|store|{_OWN})(/.*)?")
METRICS = "/metrics"
_ITS_OWN = "/noauth"  # root path of LangGraph Server's calls to itself; clients cannot set it
_NO_WEBSOCKET = "Users with API keys use HTTP: commands over a WebSocket are not checked."
USER = "moa_user"
"""Key in the ASGI scope for the user who sends the request."""


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
        if path_of(scope) == METRICS and reads_metrics(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        try:
            user = await run_in_threadpool(user_of, Headers(scope=scope))
        except PermissionError as error:
            await refuse(Refused(401, str(error)), scope, receive, send)
            return
        if user != LOCAL_USER and not _OFFERED.fullmatch(path_of(scope)):
            await refuse(Refused(404, "Not found."), scope, receive, send)
            return
        if user != LOCAL_USER and scope["type"] == "websocket":
            await refuse(Refused(403, _NO_WEBSOCKET), scope, receive, send)
            return
        scope[USER] = user
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
    reads = scope["method"] in ("GET", "HEAD") and _PUBLIC.fullmatch(path_of(scope))
    return bool(reads) or scope["method"] == "OPTIONS"  # a browser's CORS preflight


def path_of(scope: Scope) -> str:
    """Return the path of a request below the root of the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
