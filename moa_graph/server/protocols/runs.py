"""Calls from the routes of the protocols to this server's own API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
from fastapi import Request
from langgraph_sdk.schema import RunCreateMetadata

from moa_graph._compat import on_aegra
from moa_graph.presets import PRESETS
from moa_graph.server.aegra.streams import TAKES_RESTARTS
from moa_graph.server.assistants import check_given
from moa_graph.server.itself import Itself
from moa_graph.server.protocols.chat_completions.request import ChatCompletionRequest
from moa_graph.server.protocols.errors import refused, unknown
from moa_graph.server.protocols.fields import given
from moa_graph.server.protocols.translation import context_of, input_of
from moa_graph.server.request_ids import HEADER
from moa_graph.server.settings import SETTINGS

_PAGE = 100  # assistants per search request

T = TypeVar("T")

_forgetting: set[asyncio.Task[None]] = set()  # asyncio keeps weak references only


class Server:
    """Client of this server's own API, with the credentials of a request."""

    def __init__(self, request: Request) -> None:
        itself = Itself(request.scope)
        self._client, self._streams = itself.client, itself.streams
        self._headers = itself.headers

    async def models(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the available assistants with their model names."""
        found: list[Any] = []
        while len(found) % _PAGE == 0:
            page = await self._told(
                self._client.assistants.search(
                    limit=_PAGE, offset=len(found), headers=self._headers
                )
            )
            if not page:
                break
            found += page
        return _names(found)

    async def start(
        self, asked: ChatCompletionRequest, thread: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Return the events of a run that answers the request. Reading the first one starts it.

        Args:
            asked: The request.
            thread: Thread in which the run is kept, which is created if there is none; None for
                a run without a thread.

        Raises:
            ApiError: If the request is invalid, or its model is unknown.
        """
        question = input_of(asked)
        assistant = await self._assistant(asked.model)
        return self._events(assistant, question, asked, thread)

    async def describe_thread(self, thread: str, metadata: dict[str, Any]) -> None:
        """Add metadata to a thread."""
        threads = self._client.threads
        await self._told(threads.update(thread, metadata=metadata, headers=self._headers))

    async def thread(self, thread: str) -> dict[str, Any]:
        """Return a thread, with the values of its state."""
        threads = self._client.threads
        found = await self._told(threads.get(thread, headers=self._headers))
        state = await self._told(threads.get_state(thread, headers=self._headers))
        return {**found, "values": state["values"]}

    async def threads(self, metadata: dict[str, Any], limit: int) -> list[Any]:
        """Return the ids and the metadata of threads with this metadata, the newest first."""
        found = self._client.threads.search(
            metadata=metadata,
            limit=limit,
            sort_by="created_at",
            sort_order="desc",
            select=["thread_id", "metadata"],
            headers=self._headers,
        )
        return list(await self._told(found))

    async def delete_thread(self, thread: str) -> None:
        """Delete a thread."""
        await self._told(self._client.threads.delete(thread, headers=self._headers))

    async def _events(
        self,
        assistant: str,
        question: dict[str, Any],
        asked: ChatCompletionRequest,
        thread: str | None,
    ) -> AsyncGenerator[Any, None]:
        created: list[RunCreateMetadata] = []
        ended = False
        metadata = self._metadata(asked)
        events = self._streams.runs.stream(  # type: ignore[call-overload]
            thread,
            assistant,
            input=question,
            context=context_of(asked),
            config={"metadata": metadata},  # Aegra does not show a run's own metadata
            metadata=metadata,
            stream_mode=["messages-tuple", "updates"],
            on_disconnect="cancel",
            headers={**self._headers, TAKES_RESTARTS: "true"},
            on_run_created=created.append,
            **({"if_not_exists": "create"} if thread else {}),
        )
        try:
            async for event in events:
                ended = ended or event.event == "end"
                yield event
        except httpx.HTTPError as error:
            raise refused(error, asked.model) from error
        finally:
            await events.aclose()
            if on_aegra() and thread is None and created and not ended:
                self._forget(str(created[0]["thread_id"]))

    def _forget(self, thread: str) -> None:
        """Delete the thread that Aegra created for a run, and keeps if its client goes away.

        This cancels the run, which another process would go on with. It returns at once: what
        waits for a client that is gone is cancelled.
        """
        task = asyncio.create_task(self._deleted(thread))
        _forgetting.add(task)
        task.add_done_callback(_forgetting.discard)

    async def _deleted(self, thread: str) -> None:
        with suppress(httpx.HTTPError):  # it was deleted
            await self._client.threads.delete(thread, headers=self._headers)

    def _metadata(self, asked: ChatCompletionRequest) -> dict[str, str]:
        known = given({"user": asked.user, "request_id": self._headers.get(HEADER)})
        return {**(asked.metadata or {}), **known}

    async def _assistant(self, model: str) -> str:
        if model in PRESETS:
            return model  # each preset is a graph, with an assistant of the same name
        try:
            return str(UUID(model))
        except ValueError:
            pass
        found = await self._told(
            self._client.assistants.search(name=model, limit=_PAGE, headers=self._headers)
        )
        for assistant in found:
            if assistant["name"] == model:
                return str(assistant["assistant_id"])
        raise unknown(model)

    async def _told(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except httpx.HTTPError as error:
            raise refused(error) from error


def _names(assistants: list[Any]) -> list[tuple[str, Any]]:
    """Return assistants with their names, or their ids if a name is already taken."""
    named: dict[str, Any] = {}
    for assistant in sorted(assistants, key=lambda a: not _is_system(a)):
        name = assistant["graph_id"] if _is_system(assistant) else assistant["name"]
        if not _is_usable(name, assistant):
            continue
        named[assistant["assistant_id"] if not name or name in named else name] = assistant
    return list(named.items())


def _is_usable(name: str, assistant: Any) -> bool:
    """Return whether this server allows the models and the size of an assistant."""
    if _is_system(assistant) and name in PRESETS:
        return all(map(SETTINGS.allows, PRESETS[name].models()))
    configured = (assistant.get("config") or {}).get("configurable") or {}
    try:
        check_given({**configured, **(assistant.get("context") or {})}, whole=True)
    except ValueError:
        return False
    return True


def _is_system(assistant: Any) -> bool:
    return (assistant.get("metadata") or {}).get("created_by") == "system"


def described(name: str, assistant: Any) -> dict[str, Any]:
    """Return an assistant as a model, in the forms of OpenAI's and of Anthropic's API."""
    created = _moment(assistant.get("created_at"))
    return {
        "id": name,
        "created": int(created.timestamp()),
        "owned_by": "system" if _is_system(assistant) else "user",
        "display_name": name,
        "created_at": created.isoformat(),
    }


def _moment(written: Any) -> datetime:
    try:
        return datetime.fromisoformat(str(written)).astimezone(UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
