"""Deletion of threads that cancelled stateless runs have left.

LangGraph Server deletes the temporary thread of a stateless run when a worker has ended the run. No
worker gets a run that is cancelled while it waits in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph._compat import on_aegra
from moa_graph.server.checks.quotas import TEMPORARY
from moa_graph.server.guard import USER, path_of
from moa_graph.server.itself import Itself

logger = logging.getLogger("moa_graph")

# Requests that cancel runs, and requests that cancel their run if the client disconnects.
_CANCELS = re.compile(
    r"POST (/runs/cancel|/threads/[^/]+/runs/[^/]+/cancel)"
    r"|DELETE (/threads/[^/]+/runs/[^/]+|/assistants/[^/]+)"
)
_WAITS = re.compile(r"POST /runs/(stream|wait)|GET /threads/[^/]+/runs/[^/]+/(join|stream)")
_PAGE = 100  # threads per request
_PATIENCE = 0.5  # seconds until a run is cancelled after its client has disconnected
_CREATED_WITHIN = timedelta(seconds=2)  # the server stores a thread before its run
_ROUNDS = 3


class Leftovers:
    """ASGI middleware that deletes threads of stateless runs which never began.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and delete threads if it has cancelled runs."""
        asked = f"{scope.get('method')} {path_of(scope)}" if scope["type"] == "http" else ""
        cancels, waits = _CANCELS.fullmatch(asked), _WAITS.fullmatch(asked)
        if on_aegra() or USER not in scope or not (cancels or waits):
            await self._app(scope, receive, send)
            return
        whole = False

        async def sending(message: Message) -> None:
            nonlocal whole
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await self._app(scope, receive, sending)
        finally:
            if cancels or not whole:
                self._begin(scope[USER], Itself(scope))

    def _begin(self, user: str, itself: Itself) -> None:
        """Delete a user's leftover threads soon; one task does so for several requests."""
        if user in self._waiting:
            return
        self._waiting.add(user)
        task = asyncio.create_task(self._delete(user, itself))
        self._tasks.add(task)  # the event loop keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, user: str, itself: Itself) -> None:
        await asyncio.sleep(_PATIENCE)
        self._waiting.discard(user)
        try:
            for _ in range(_ROUNDS):
                if not await delete_leftovers(itself):
                    return
                await asyncio.sleep(_CREATED_WITHIN.total_seconds())
        except httpx.HTTPError as error:
            logger.warning("Threads of cancelled runs were not deleted: %s", error)


async def delete_leftovers(itself: Itself) -> bool:
    """Delete a user's temporary threads whose runs were cancelled before they began.

    Args:
        itself: This server's own API, as the user.

    Returns:
        Whether there are threads for which this cannot be known yet.
    """
    unsure, kept = False, 0
    while True:
        page: list[Any] = await itself.client.threads.search(
            metadata={TEMPORARY: True},
            limit=_PAGE,
            offset=kept,
            sort_by="created_at",
            sort_order="asc",
            select=["thread_id", "status", "created_at"],
            headers=itself.headers,
        )
        for thread in page:
            is_left = await _is_left(itself, thread)
            unsure |= is_left is None
            if is_left:
                await _delete(itself, thread["thread_id"])
            else:
                kept += 1
        if len(page) < _PAGE:
            return unsure


async def _is_left(itself: Itself, thread: Any) -> bool | None:
    """Return whether no run will end with the deletion of a thread; None if it is new."""
    if thread["status"] == "idle":  # the thread of a run is busy until a worker deletes it
        return True
    if await itself.client.runs.list(thread["thread_id"], limit=1, headers=itself.headers):
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(thread["created_at"])
    return True if age > _CREATED_WITHIN else None


async def _delete(itself: Itself, thread_id: str) -> None:
    try:
        await itself.client.threads.delete(thread_id, headers=itself.headers)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise
