"""Connections of its own for each event loop.

A connection belongs to the event loop in which it was opened, and HTTP clients keep connections
open between requests. A client that is used in two loops gives one the other's.
"""

from __future__ import annotations

import weakref
from collections.abc import MutableMapping
from typing import Any

from moa_graph._compat import without_connections
from moa_graph.calling import sync


class _Copies:
    """One client, and its copies for other event loops than the first."""

    def __init__(self) -> None:
        self.first: weakref.ref[Any] | None = None
        self.by_loop: MutableMapping[Any, Any] = weakref.WeakKeyDictionary()


_clients: MutableMapping[Any, _Copies] = weakref.WeakKeyDictionary()
_lock = sync.Lock()


def client_for(client: Any, loop: Any, *, own: bool) -> Any:
    """Return the client to use in an event loop, set up as the given one is.

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
            copies.by_loop[loop] = without_connections(client)
        return copies.by_loop[loop]
