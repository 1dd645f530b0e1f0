"""Stored responses: each is a thread of the server, which belongs to the user who asked."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar
from uuid import UUID, uuid4

from langchain_core.messages import AIMessage, convert_to_messages, convert_to_openai_messages

from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.reply import Reply
from moa_graph.server.protocols.responses.items import ItemReference, call_of
from moa_graph.server.protocols.responses.request import ResponsesRequest
from moa_graph.server.protocols.runs import Server
from moa_graph.server.settings import SETTINGS

_KIND = {"moa_response": "kept"}  # metadata of their threads
_DIGITS = 12  # of a time in Unix seconds
_NUMBER = re.compile(r"[0-9]{1,4}")  # of an item
_logger = logging.getLogger("moa_graph")


@dataclass(frozen=True)
class StoredResponse:
    """A response that was stored.

    Args:
        id: Id of the response.
        values: Values of its thread.
        metadata: Metadata of its thread.
    """

    id: str
    values: dict[str, Any]
    metadata: dict[str, Any]

    def messages(self) -> list[dict[str, Any]]:
        """Return its conversation, without its instructions, as Chat Completions has it."""
        found = convert_to_messages(self.values.get("messages") or [])
        return [*map(_as_openai, found[1:] if self.metadata.get("instructed") else found)]

    def about(self) -> dict[str, Any]:
        """Return what was asked for, without what a client has changed to something else."""
        known = self.metadata
        asked, previous = known.get("asked"), known.get("previous")
        are_texts = isinstance(asked, dict) and all(isinstance(v, str) for v in asked.values())
        return {
            "model": str(known.get("model") or ""),
            "metadata": asked if are_texts else {},
            "previous_response_id": previous if isinstance(previous, str) else None,
        }

    def reply(self) -> Reply:
        """Return its reply.

        Raises:
            ApiError: If it has none.
        """
        return Reply.of_state(self.values)


def new_id() -> str:
    """Return the id of a new response."""
    return f"resp_{uuid4().hex}"


def item_id(kind: str, response: str, number: int) -> str:
    """Return the id of an output item.

    Args:
        kind: `"msg"` or `"fc"`.
        response: Id of the response.
        number: Number among its items of that kind, from 0.
    """
    return f"{kind}_{response.removeprefix('resp_')}_{number}"


class StoredResponses:
    """The stored responses of one user.

    Args:
        server: This server's own API, with the user's credentials.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    async def keep(self, response: str, asked: ResponsesRequest) -> None:
        """Mark the thread of a whole response as one that is kept.

        Raises:
            ApiError: If the server refuses it.
        """
        about = {
            **_KIND,
            "model": asked.model,
            "created": str(int(time.time())),
            "instructed": bool(asked.instructions),
            "previous": asked.previous_response_id,
            "asked": asked.metadata or {},
        }
        await self._server.describe_thread(thread_of(response), about)

    async def get(self, response: str) -> StoredResponse:
        """Return a stored response.

        Raises:
            ApiError: If there is none of that id, or it has expired.
        """
        try:
            thread = await self._server.thread(thread_of(response))
        except ApiError as error:
            raise _missing(response) from error
        metadata = thread.get("metadata") or {}
        if metadata.get("moa_response") != "kept" or _is_old(thread):
            raise _missing(response)
        return StoredResponse(response, thread.get("values") or {}, metadata)

    async def delete(self, response: str) -> None:
        """Delete a stored response.

        Raises:
            ApiError: If there is none of that id.
        """
        await self.get(response)
        await self._server.delete_thread(thread_of(response))

    async def referred(self, items: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
        """Return the messages for the item references among input items, by their ids.

        References to unknown items are left out.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        replies: dict[str, Reply | None] = {}
        for reference in (item for item in items if isinstance(item, ItemReference)):
            kind, _, place = reference.id.partition("_")
            owner, _, number = place.rpartition("_")
            response = f"resp_{owner}"
            if response not in replies:
                replies[response] = await self._reply_of(response)
            reply = replies[response]
            if reply is not None and _NUMBER.fullmatch(number):
                message = _item(reply, kind, int(number))
                if message is not None:
                    found[reference.id] = message
        return found

    async def _reply_of(self, response: str) -> Reply | None:
        try:
            return (await self.get(response)).reply()
        except ApiError:
            return None

    async def forget_old(self) -> None:
        """Delete responses that have expired, and the oldest above the number that is kept.

        Raises:
            ApiError: If the server refuses it.
        """
        newest = await self._server.threads(_KIND, SETTINGS.max_responses + _AT_ONCE)
        for number, thread in enumerate(newest):
            if number >= SETTINGS.max_responses or _is_old(thread):
                await self.forget(thread["thread_id"])

    async def forget(self, thread: str) -> None:
        """Delete a thread, if it is there.

        Raises:
            ApiError: If the server refuses it.
        """
        try:
            await self._server.delete_thread(thread)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


_AT_ONCE = 10  # most responses that are deleted for a new one


class Keeper:
    """Keeps the reply of a response.

    Args:
        stored: The stored responses of the user.
        response: Id of the response.
        asked: The request.
    """

    _tasks: ClassVar[set[asyncio.Task[None]]] = set()  # the event loop keeps no reference

    def __init__(self, stored: StoredResponses, response: str, asked: ResponsesRequest) -> None:
        self._stored = stored
        self._response = response
        self._asked = asked

    async def keep(self) -> None:
        """Keep a whole reply. It was paid for, so a failure is logged and does not end it."""
        try:
            await self._stored.keep(self._response, self._asked)
        except ApiError as error:
            _logger.warning("The response %s is not kept: %s", self._response, error)
        self._begin(self._stored.forget_old())

    def drop(self) -> None:
        """Delete the thread of a run that ended without a reply."""
        self._begin(self._stored.forget(thread_of(self._response)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work for which the client does not wait."""

        async def quietly() -> None:
            try:
                await work
            except ApiError as error:
                _logger.warning("Old responses were not deleted: %s", error)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def thread_of(response: str) -> str:
    """Return the id of the thread of a response.

    Raises:
        ApiError: If it is not the id of a response.
    """
    try:
        return str(UUID(hex=response.removeprefix("resp_")))
    except ValueError:
        raise _missing(response) from None


def _missing(response: str) -> ApiError:
    return ApiError(
        404,
        f"There is no stored response {response!r}. Responses are kept for "
        f"{SETTINGS.response_minutes:,g} minutes (MOA_RESPONSE_MINUTES), and not with store=false; "
        "send the whole conversation as the input instead.",
        "previous_response_not_found",
        param="previous_response_id",
    )


def _is_old(thread: Any) -> bool:
    return time.time() - created_at(thread.get("metadata") or {}) > SETTINGS.response_minutes * 60


def created_at(metadata: Mapping[str, Any]) -> int:
    """Return when a response was created, in Unix seconds; 0 if its metadata was changed."""
    created = str(metadata.get("created"))
    is_time = created.isascii() and created.isdecimal() and len(created) < _DIGITS
    return int(created) if is_time else 0


def _as_openai(message: Any) -> dict[str, Any]:
    if isinstance(message, AIMessage):
        return _assistant(Reply.of_state({"messages": [message.model_dump()]}))
    converted: dict[str, Any] = convert_to_openai_messages([message])[0]
    return converted


def _assistant(reply: Reply) -> dict[str, Any]:
    whole = reply.calls if reply.finish != "length" else []  # the arguments of a cut call are not
    calls = [call_of(call.id, call.name, call.arguments) for call in whole]
    content = reply.text or reply.refusal or ""
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}


def _item(reply: Reply, kind: str, number: int) -> list[dict[str, Any]] | None:
    """Return the messages for one output item; None if the reply has no such item."""
    if kind == "msg":  # text that came in several items is referred to by the first
        text = {"role": "assistant", "content": reply.text or reply.refusal or ""}
        return [text] if number == 0 else []
    if kind == "fc" and number < len(reply.calls):
        call = reply.calls[number]
        return [{"role": "assistant", "tool_calls": [call_of(call.id, call.name, call.arguments)]}]
    return None
