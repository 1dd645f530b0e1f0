"""Connections of its own for each event loop.

A connection belongs to the event loop in which it was opened, and HTTP clients keep connections
open between requests. A client that is used in two loops gives one the other's.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import MutableMapping
from typing import Any


class _Copies:
    """One client, and its copies for other event loops than the first."""

    def __init__(self) -> None:
        self.first: weakref.ref[Any] | None = None
        self.by_loop: MutableMapping[Any, Any] = weakref.WeakKeyDictionary()


_clients: MutableMapping[Any, _Copies] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def client_for(client: Any, loop: Any, *, own: bool) -> Any:
    """The client to use in an event loop, set up as the given one is.

    Args:
        client: An `httpx.AsyncClient` (or httpx2's), of whatever proxies, certificates or limits.
        loop: The event loop.
        own: Whether the loop always has a copy, as others may use the client, too.

    Returns:
        The client itself in the first loop, and if it has a transport of another kind; a copy
        without its connections, the same each time, in others.
    """
    with _lock:
        copies = _clients.setdefault(client, _Copies())
        if not own:
            if copies.first is None:
                copies.first = weakref.ref(loop)
            if copies.first() is loop:
                return client
        if loop not in copies.by_loop:
            copies.by_loop[loop] = _copy(client)
        return copies.by_loop[loop]


def _copy(client: Any) -> Any:
    # There is no public way to ask a client what it was made with.
    transport = getattr(client, "_transport", None)
    mounts = getattr(client, "_mounts", {})
    if not all(_is_pooled(t) for t in (transport, *mounts.values()) if t is not None):
        return client
    twin = copy.copy(client)
    twin._transport = _with_empty_pool(transport)  # noqa: SLF001
    twin._mounts = {url: t and _with_empty_pool(t) for url, t in mounts.items()}  # noqa: SLF001
    return twin


def _is_pooled(transport: Any) -> bool:
    pool = vars(transport).get("_pool")
    return pool is not None and {"_connections", "_requests"} <= vars(pool).keys()


def _with_empty_pool(transport: Any) -> Any:
    twin = copy.copy(transport)
    twin._pool = copy.copy(transport._pool)  # noqa: SLF001
    twin._pool._connections = []  # noqa: SLF001
    twin._pool._requests = []  # noqa: SLF001
    return twin
