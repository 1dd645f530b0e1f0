"""Several assistants of one context on Aegra, as LangGraph Server has them."""

from __future__ import annotations

import json
import re
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.checks.requests import again, parsed, read_body
from moa_graph.server.guard import path_of

_ROUTES = {"POST": re.compile(r"/assistants/?"), "PATCH": re.compile(r"/assistants/([^/]+)/?")}


class DistinctAssistants:
    """ASGI middleware that makes the configuration of each assistant distinct.

    In Aegra's database, a user's assistants of a graph must have different configurations, so that
    a second assistant of the same context is refused with status 409. Each one therefore has its
    id in the metadata of its configuration, which LangGraph Server adds to that of its runs.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application; one that writes an assistant with its id added."""
        route = _ROUTES.get(scope.get("method", "")) if scope["type"] == "http" else None
        if route is None or not (found := route.fullmatch(path_of(scope))):
            await self._app(scope, receive, send)
            return
        body = await read_body(receive) or b""
        if (changed := _with_id(body, *found.groups())) is not None:
            body = changed
            scope = {**scope, "headers": [*scope["headers"]]}
            MutableHeaders(scope=scope)["content-length"] = str(len(body))
        await self._app(scope, again(body, receive), send)


def _with_id(body: bytes, assistant: str | None = None) -> bytes | None:
    """Return the request to write an assistant with its id in it; None for one to leave as it is.

    Args:
        body: Body of the request.
        assistant: Id of the assistant; None for a new one.
    """
    asked = parsed(body)
    if not isinstance(asked, dict) or (assistant and "config" not in asked):
        return None
    config = asked.get("config") or {}
    metadata = (config.get("metadata") or {}) if isinstance(config, dict) else None
    if not isinstance(metadata, dict):
        return None  # refused by the route, with the reason
    if assistant is None:
        assistant = asked["assistant_id"] = asked.get("assistant_id") or str(uuid4())
    asked["config"] = {**config, "metadata": {**metadata, "assistant_id": assistant}}
    return json.dumps(asked).encode()
