"""Checks of requests to the servers' own routes: bounds of every user, and quotas of API keys."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph._compat import on_aegra
from moa_graph.server.checks import quotas
from moa_graph.server.checks.batches import check_assistants
from moa_graph.server.checks.rates import check_rate
from moa_graph.server.checks.refusals import Refused, refuse
from moa_graph.server.checks.requests import again, parsed, read_body
from moa_graph.server.checks.updates import check_body
from moa_graph.server.guard import USER, path_of
from moa_graph.server.itself import Itself
from moa_graph.server.settings import LOCAL_USER


@dataclass
class Write:
    """A request that stores something.

    Args:
        user: Name of the user.
        key: The id in its path; an empty string if there is none.
        body: Its JSON.
        itself: This server's own API, as the user.
    """

    user: str
    key: str
    body: Any
    itself: Itself

    @property
    def fields(self) -> Mapping[str, Any]:
        """Fields of its body; empty for another body, which the route refuses."""
        return self.body if isinstance(self.body, Mapping) else {}


class Writes:
    """ASGI middleware that refuses requests to store too much.

    The quotas are checked here and not in `auth.py`, so that no connection of a database is held
    meanwhile. The requests of one user are checked one after the other, each until its response
    starts, so that what one request stores is counted for the next one.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._locks: dict[str, asyncio.Lock] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it to the application."""
        found = check_of(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        check, key = found
        read = await read_body(receive) or b""
        receive, body = again(read, receive), parsed(read)
        try:
            check_body(path_of(scope), body)
        except (ValueError, RecursionError) as error:
            await refuse(Refused.of(error), scope, receive, send)
            return
        user = scope.get(USER, LOCAL_USER)
        if check is None or (user == LOCAL_USER and check is not _batch):
            await self._app(scope, receive, send)
            return
        lock = self._locks.setdefault(user, asyncio.Lock())
        turn = _Turn(lock, send)
        await lock.acquire()
        try:
            await check(Write(user, key, body, Itself(scope)))
            await self._app(scope, receive, turn.send)
        except Refused as refused:
            await refuse(refused, scope, receive, send)
        finally:
            turn.end()


class _Turn:
    """The time in which a request holds the lock of its user.

    Args:
        lock: The lock, which is held.
        send: ASGI callable that sends the response.
    """

    def __init__(self, lock: asyncio.Lock, send: Send) -> None:
        self._lock = lock
        self._send = send
        self._held = True

    async def send(self, message: Message) -> None:
        """Send a part of the response; the first one ends the turn."""
        self.end()
        await self._send(message)

    def end(self) -> None:
        """Release the lock, if this was not done yet."""
        if self._held:
            self._held = False
            self._lock.release()


async def _create_thread(write: Write) -> None:
    quotas.check_metadata(quotas.described(write.fields))
    given = write.fields.get("thread_id") or write.fields.get("threadId")
    await _may_create_thread(write, given)
    steps = write.fields.get("supersteps")
    if isinstance(steps, list) and steps:
        await check_rate(write.user, len(steps))


async def _may_create_thread(write: Write, thread_id: Any) -> None:
    if isinstance(thread_id, str) and await quotas.found(write.itself, "threads", thread_id):
        return
    await quotas.check_threads(write.itself)


async def _copy_thread(write: Write) -> None:
    await quotas.check_copy(write.itself, write.key)
    await quotas.check_threads(write.itself)
    await check_rate(write.user)


async def _update_thread(write: Write) -> None:
    await _check_merged(write, "threads")


async def _check_merged(write: Write, kind: str) -> None:
    """Check the metadata that a thread or an assistant has after an update."""
    resource = await quotas.found(write.itself, kind, write.key) or {}
    before, new = quotas.described(resource), quotas.described(write.fields)
    both = [known.get("metadata") for known in (before, new)]
    merged = {
        name: value for one in both if isinstance(one, Mapping) for name, value in one.items()
    }
    quotas.check_metadata({**before, **new, "metadata": merged}, before)


async def _update_state(write: Write) -> None:
    await check_rate(write.user)


async def _run(write: Write) -> None:
    # Aegra creates the thread of any run that has none.
    if on_aegra() or write.fields.get("if_not_exists") == "create":
        await _may_create_thread(write, write.key)


async def _command(write: Write) -> None:
    if write.fields.get("method") == "run.start":
        await _may_create_thread(write, write.key)


async def _stateless_run(write: Write) -> None:
    if _is_kept(write.body):
        await quotas.check_threads(write.itself)


def _is_kept(run: Any) -> bool:
    return isinstance(run, Mapping) and run.get("on_completion") == "keep"


async def _batch(write: Write) -> None:
    runs = write.body if isinstance(write.body, list) else []
    await check_assistants(write.itself, runs)
    kept = sum(map(_is_kept, runs))
    if kept and write.user != LOCAL_USER:
        await quotas.check_threads(write.itself, kept)


async def _create_assistant(write: Write) -> None:
    quotas.check_mixture(write.fields)
    quotas.check_metadata(quotas.described(write.fields))
    given = write.fields.get("assistant_id") or write.fields.get("assistantId")
    if isinstance(given, str) and await quotas.found(write.itself, "assistants", given):
        return
    await quotas.check_assistants(write.itself, write.user)


async def _update_assistant(write: Write) -> None:
    quotas.check_mixture(write.fields)
    await _check_merged(write, "assistants")
    await quotas.check_versions(write.itself, write.key)


async def _put_item(write: Write) -> None:
    namespace, key = write.fields.get("namespace"), write.fields.get("key")
    if isinstance(key, str) and isinstance(namespace, list | None):
        value = write.fields.get("value")
        await quotas.check_item(write.itself, write.user, namespace or [], key, value)


_Check = Callable[[Write], Awaitable[None]]
_ID = "([^/]+)"
_CHECKS: dict[tuple[str, str], _Check | None] = {
    ("POST", "/threads"): _create_thread,
    ("PATCH", f"/threads/{_ID}"): _update_thread,
    ("POST", f"/threads/{_ID}/copy"): _copy_thread,
    ("POST", f"/threads/{_ID}/state"): _update_state,
    ("POST", f"/threads/{_ID}/state/checkpoint"): None,
    ("POST", f"/threads/{_ID}/history"): None,
    ("POST", f"/threads/{_ID}/runs"): _run,
    ("POST", f"/threads/{_ID}/runs/stream"): _run,
    ("POST", f"/threads/{_ID}/runs/wait"): _run,
    ("POST", f"/threads/{_ID}/commands"): _command,
    ("POST", "/runs"): _stateless_run,
    ("POST", "/runs/stream"): _stateless_run,
    ("POST", "/runs/wait"): _stateless_run,
    ("POST", "/runs/batch"): _batch,
    ("POST", "/assistants"): _create_assistant,
    ("PATCH", f"/assistants/{_ID}"): _update_assistant,
    ("PUT", "/store/items"): _put_item,
    ("POST", "/store/items/search"): None,
    ("POST", "/store/namespaces"): None,
    ("POST", "/(threads|assistants)/search"): None,
}
"""Checks of quotas, by method and pattern of the path; None if only the bounds are checked."""
_PATTERNS = [(method, re.compile(path), check) for (method, path), check in _CHECKS.items()]


def check_of(scope: Scope) -> tuple[_Check | None, str] | None:
    """Return the check of a request and the id in its path; None if it has no bounds of its own."""
    if scope["type"] != "http":
        return None
    for method, pattern, check in _PATTERNS:
        if scope["method"] == method and (match := pattern.fullmatch(path_of(scope))):
            return check, "".join(match.groups())
    return None
