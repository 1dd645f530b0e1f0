"""What each name with API keys may store on this server, counted through the server's own API.

The servers count for all processes, and a restart or a deletion changes nothing here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from moa_graph.server.checks.refusals import Refused
from moa_graph.server.itself import Itself
from moa_graph.server.settings import SETTINGS
from moa_graph.server.users import label_of

TEMPORARY = "moa_temporary"
"""Key in the metadata of a thread that the server deletes at the end of its run."""

_PAGE = 100  # threads or items per request
_UNCOUNTED = (404, 405)  # statuses of a server that has no route to count threads
_ATTEMPTS = 5  # to count threads while no temporary ones come or go
_SHARE = 4  # processes that together stay within the quota while they do not count
_COUNTED_FOR = 10.0  # seconds


async def check_threads(itself: Itself, new: int = 1) -> None:
    """Check that a user may keep more threads.

    Threads of stateless runs do not count, because they are temporary.

    Args:
        itself: This server's own API, as the user.
        new: Number of new threads (at least 1).

    Raises:
        Refused: With status 403, if these would be more than `MOA_MAX_THREADS`.
    """
    if await _threads(itself) + new <= SETTINGS.max_threads:
        return
    # Temporary threads come and go meanwhile: in doubt, more of them are assumed.
    for _ in range(_ATTEMPTS):
        before = await _threads(itself, temporary=True)
        there = await _threads(itself)
        after = await _threads(itself, temporary=True)
        there -= max(before, after)
        if before == after:
            break
    _check("threads", there, new, SETTINGS.max_threads, "MOA_MAX_THREADS")


async def check_assistants(itself: Itself, user: str) -> None:
    """Check that a user may have another assistant.

    Raises:
        Refused: With status 403, if there are `MOA_MAX_ASSISTANTS`.
    """
    own = {"owner": user}
    there = await itself.client.assistants.count(metadata=own, headers=itself.headers)
    _check("assistants", there, 1, SETTINGS.max_assistants, "MOA_MAX_ASSISTANTS")


async def check_versions(itself: Itself, assistant_id: str) -> None:
    """Check that an assistant may have another version.

    Raises:
        Refused: With status 403, if there were `MOA_MAX_VERSIONS`.
    """
    versions = await _there(
        itself.client.assistants.get_versions(_step(assistant_id), limit=1, headers=itself.headers)
    )
    last = max((version["version"] for version in versions or ()), default=0)
    if last >= SETTINGS.max_versions:
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"The assistant has had {last:,} versions; the maximum on this server is "
            f"{SETTINGS.max_versions:,} (MOA_MAX_VERSIONS). Create another one and delete this.",
        )


def check_metadata(given: Any, before: Any = None) -> None:
    """Check the size of what a user tells about a thread, a run or an assistant.

    Args:
        given: All of it, with what was there before.
        before: What was there before, which may be larger.

    Raises:
        Refused: With status 413, if it has more than `MOA_MAX_METADATA` bytes.
    """
    size = _bytes_of(given)
    if size > SETTINGS.max_metadata and size > _bytes_of(before):
        what = "Metadata, name and description"
        raise _too_large(what, size, SETTINGS.max_metadata, "MOA_MAX_METADATA")


def check_mixture(given: Mapping[str, Any]) -> None:
    """Check the size of the settings of an assistant.

    Args:
        given: Request that creates or changes an assistant.

    Raises:
        Refused: With status 413, if they have more than `MOA_MAX_MIXTURE` bytes.
    """
    size = _bytes_of([given.get("context"), given.get("config")])
    if size > SETTINGS.max_mixture:
        what = "The assistant's context and config"
        raise _too_large(what, size, SETTINGS.max_mixture, "MOA_MAX_MIXTURE")


async def check_copy(itself: Itself, thread_id: str) -> None:
    """Check that a thread is not temporary, as its copy would count as temporary, too.

    Raises:
        Refused: With status 409, if it is.
    """
    thread = await found(itself, "threads", thread_id)
    if thread and (thread.get("metadata") or {}).get(TEMPORARY):
        raise Refused(
            HTTPStatus.CONFLICT,
            "The thread is of a stateless run, which deletes it. Start the run on a thread of "
            "your own.",
        )


async def found(itself: Itself, kind: str, key: str) -> Mapping[str, Any] | None:
    """Return a thread or an assistant of a user; None if the user has none with this id.

    Args:
        itself: This server's own API, as the user.
        kind: `"threads"` or `"assistants"`.
        key: Its id.
    """
    get = getattr(itself.client, kind).get
    resource: Mapping[str, Any] | None = await _there(get(_step(key), headers=itself.headers))
    return resource


def _step(key: str) -> str:
    """Return an id as one step of a path: Aegra's may have any characters."""
    return quote(key, safe="")


def described(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request or a resource tells about a thread or an assistant."""
    told = {name: given.get(name) for name in ("metadata", "name", "description")}
    return {name: value for name, value in told.items() if value}


async def _threads(itself: Itself, *, temporary: bool = False) -> int:
    """Return the number of threads, or of those that are known to be temporary."""
    metadata = {TEMPORARY: True} if temporary else None
    api = itself.client.threads
    try:
        return await api.count(metadata=metadata, headers=itself.headers)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in _UNCOUNTED:
            raise
    there = 0
    while there % _PAGE == 0:
        page = await api.search(
            metadata=metadata, limit=_PAGE, offset=there, headers=itself.headers
        )
        there += len(page)
        if not page:
            break
    return there


async def _there(answer: Awaitable[Any]) -> Any:
    """Return an answer of the server's own API; None if it says that there is no such thing."""
    try:
        return await answer
    except httpx.HTTPStatusError as error:
        if error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        raise


def _check(what: str, there: int, new: int, most: int, setting: str) -> None:
    if there + new <= most:
        return
    more = f" and {new:,} more are asked for" if new > 1 else ""
    raise Refused(
        HTTPStatus.FORBIDDEN,
        f"This key has {there:,} {what}{more}; the maximum on this server is {most:,} "
        f"({setting}). Delete some.",
    )


def _too_large(what: str, size: int, most: int, setting: str) -> Refused:
    said = f"{what} have {size:,} bytes; this server takes at most {most:,} ({setting})."
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)


def _bytes_of(value: Any) -> int:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return len(text.encode(errors="surrogatepass"))


# --- items of the store ----------------------------------------------------------------------


@dataclass
class _Room:
    """What a user may store before this process counts again."""

    items: int
    size: int
    until: float


_rooms: dict[str, _Room] = {}


async def check_item(
    itself: Itself, user: str, namespace: Sequence[str], key: str, value: Any
) -> None:
    """Check that a user may store an item.

    The servers cannot count items, so all are read. A process does that again only when a share
    of the room is used, or after a while.

    Args:
        itself: This server's own API, as the user.
        user: Name of the user.
        namespace: Namespace of the item.
        key: Key of the item; an item with the same key is replaced.
        value: Its value.

    Raises:
        Refused: With status 403, if these would be more items than `MOA_MAX_ITEMS`, or more bytes
            than `MOA_MAX_STORED_BYTES`.
    """
    size = _bytes_of([*namespace, key, value])
    room = _rooms.get(user)
    if room is None or room.items < 1 or room.size < size or room.until < time.monotonic():
        items, stored, replaced = await _stored(itself, user, namespace, key)
        if replaced is None:
            _check("items in the store", items, 1, SETTINGS.max_items, "MOA_MAX_ITEMS")
        if (more := size - (replaced or 0)) > 0:
            most = SETTINGS.max_stored_bytes
            _check("bytes in the store", stored, more, most, "MOA_MAX_STORED_BYTES")
        room = _rooms[user] = _Room(
            (SETTINGS.max_items - items) // _SHARE,
            (SETTINGS.max_stored_bytes - stored) // _SHARE,
            time.monotonic() + _COUNTED_FOR,
        )
    room.items -= 1
    room.size -= size


async def _stored(
    itself: Itself, user: str, namespace: Sequence[str], key: str
) -> tuple[int, int, int | None]:
    """Return the number and the bytes of a user's items, and the bytes of this one if it exists."""
    # LangGraph Server has the namespace that `auth.py` sets; Aegra sets its own.
    places = [[label_of(user), *namespace], ["users", user, *namespace]]
    read = stored = 0
    replaced = None
    while read % _PAGE == 0:
        page = await itself.client.store.search_items(
            (), limit=_PAGE, offset=read, headers=itself.headers
        )
        if not (items := page["items"]):
            break
        read += len(items)
        for item in items:
            size = _bytes_of([*item["namespace"][1:], item["key"], item["value"]])
            stored += size
            if item["key"] == key and list(item["namespace"]) in places:
                replaced = size
    return read, stored, replaced
