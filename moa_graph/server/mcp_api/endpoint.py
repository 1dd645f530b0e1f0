"""Route of the Model Context Protocol, over Streamable HTTP and without state.

Any of several servers can answer any request of a client. A session has an id only to tell apart
the calls of clients with the same key: a client cancels a call by the id of its request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import INVALID_REQUEST
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from moa_graph.server.checks.requests import again
from moa_graph.server.mcp_api.runs import Runs, call_id
from moa_graph.server.mcp_api.tool import SESSION, mcp_server
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.settings import SETTINGS

_GONE = 499  # as nginx has it
_log = logging.getLogger(__name__)


class Endpoint:
    """ASGI application of the route."""

    def __init__(self) -> None:
        self._manager: StreamableHTTPSessionManager | None = None
        self._cancelling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests within this context, which is that of the server's life."""
        manager = StreamableHTTPSessionManager(
            mcp_server(), stateless=True, max_request_body_size=SETTINGS.max_bytes
        )
        async with manager.run():
            self._manager = manager
            try:
                yield
            finally:
                for task in self._cancelling:
                    task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        assert self._manager is not None
        if scope["method"] != "POST":
            await _not_allowed(scope, receive, send)
            return
        # The SDK compares values of headers, and some servers keep the whitespace around them.
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        scope = {**scope, "headers": headers}
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        with suppress(ClientDisconnect):
            await self._post(self._manager, scope, receive, sending)
        if not started:  # the client has gone away; without a response, the servers log an error
            await Response(status_code=_GONE)(scope, receive, send)

    async def _post(
        self, manager: StreamableHTTPSessionManager, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = Request(scope, receive)
        body = await request.body()
        method, params = _read(body)
        if method == "initialize":
            send = _with_session(send)
        elif method == "notifications/cancelled":
            # Some clients send nothing else until a notification is acknowledged.
            task = asyncio.create_task(_cancel(request, params.get("requestId")))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        await manager.handle_request(scope, again(body, receive), send)


async def _not_allowed(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the other methods: there are no messages outside of calls, and no state to delete."""
    message = f"/mcp takes POST, not {scope['method']}."
    error = {"code": INVALID_REQUEST, "message": message}
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    refusal = JSONResponse(body, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"})
    await refusal(scope, receive, send)


def _read(body: bytes) -> tuple[Any, dict[str, Any]]:
    """Return the method and the parameters of a message; the SDK refuses an invalid one."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None, {}
    if not isinstance(message, dict):
        return None, {}
    params = message.get("params")
    return message.get("method"), params if isinstance(params, dict) else {}


def _with_session(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
            MutableHeaders(scope=message)[SESSION] = uuid4().hex
        await send(message)

    return sending


async def _cancel(request: Request, cancelled: Any) -> None:
    session = Headers(scope=request.scope).get(SESSION)
    if session is None or not isinstance(cancelled, str | int):
        return
    try:
        await Runs(request).cancel(call_id(session, cancelled))
    except ApiError as error:
        _log.info("A call could not be cancelled; it may have ended: %s", error)
