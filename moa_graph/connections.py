"""Connections of their own for the event loop in the background.

A connection belongs to the event loop in which it was opened, and HTTP clients keep connections
open between requests. A client that is used in two loops gives one the other's.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

_copies: MutableMapping[Any, Any] = WeakKeyDictionary()
_lock = threading.Lock()


def without_connections(client: Any) -> Any:
    """A copy of an asynchronous HTTP client, set up as it is, that has no connections yet.

    Args:
        client: An `httpx.AsyncClient` (or httpx2's), of whatever proxies, certificates or limits.

    Returns:
        The same copy each time. The client itself if it has a transport of another kind.
    """
    with _lock:
        if client not in _copies:
            _copies[client] = _copy(client)
        return _copies[client]


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
