"""A run on Aegra, which LangGraph Server would describe in its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.schema import RunCreateMetadata, StreamPart

from moa_graph.server.aegra_streams import TAKES_RESTARTS

_log = logging.getLogger(__name__)
_forgetting: set[asyncio.Task[None]] = set()  # asyncio itself keeps weak references only


class AegraRun:
    """A run on Aegra.

    Aegra's events name the type of an error, but only the record of the run has its message. The
    record is deleted with the thread; so that it can be read, a run without a thread is asked to
    keep the one that Aegra creates for it, which is deleted here.

    Args:
        client: Client of this server's own API, which needs no connection.
        headers: Headers with the credentials of the user.
        thread: Thread in which the run is kept; None for a run without a thread.
    """

    def __init__(
        self, client: LangGraphClient, headers: Mapping[str, str], thread: str | None
    ) -> None:
        self._client = client
        self._headers = headers
        self._keeps = thread is not None
        self._run: RunCreateMetadata | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `runs.stream`."""
        headers = {**self._headers, TAKES_RESTARTS: "true"}
        kept = {} if self._keeps else {"on_completion": "keep"}
        return {"headers": headers, "on_run_created": self._created, **kept}

    def _created(self, run: RunCreateMetadata) -> None:
        self._run = run

    async def described(self, event: StreamPart) -> StreamPart:
        """Return an event; that of an error with its message."""
        if (
            event.event != "error"
            or self._run is None
            or (thread := self._run["thread_id"]) is None
        ):
            return event
        try:
            run = await self._client.runs.get(thread, self._run["run_id"], headers=self._headers)
        except httpx.HTTPError:
            return event
        message = run.get("error_message")
        return event._replace(data={**event.data, "message": message}) if message else event

    def end(self) -> None:
        """Delete the thread of a run without a thread, which cancels the run if it has not ended.

        This returns at once, because the client may be gone, and what waits for it is cancelled.
        """
        if self._run is None or self._keeps or (thread := self._run["thread_id"]) is None:
            return
        task = asyncio.create_task(self._forget(thread))
        _forgetting.add(task)
        task.add_done_callback(_forgetting.discard)

    async def _forget(self, thread: str) -> None:
        try:
            await self._client.threads.delete(thread, headers=self._headers)
        except httpx.HTTPError as error:
            _log.warning("The thread of a run was not deleted: %s", error)
