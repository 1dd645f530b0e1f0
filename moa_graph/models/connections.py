"""Give each event loop a separate HTTP client.

A connection can be used only in the event loop that opened it, and HTTP clients keep connections
open between requests. A client used in two loops would use a connection of the wrong loop.
"""

from __future__ import annotations

import weakref
from collections.abc import MutableMapping
from typing import Any

from moa_graph._compat import sends_through_aiohttp, without_connections
from moa_graph.calling import sync
from moa_graph.models.transport import client_like


class _Copies:
    """Copies of one client for event loops other than its first."""

    def __init__(self) -> None:
        self.first: weakref.ref[Any] | None = None
        self.by_loop: MutableMapping[Any, Any] = weakref.WeakKeyDictionary()


_clients: MutableMapping[Any, _Copies] = weakref.WeakKeyDictionary()
_lock = sync.Lock()


def client_for(client: Any, loop: Any, *, own: bool) -> Any:
    """Return the client to use in an event loop, with the settings of the given client.

    Args:
        client: An `httpx.AsyncClient` (or that of httpx2), with any proxies, certificates, limits.
        loop: The event loop.
        own: Whether the loop always gets a copy, because other loops may use the client.

    Returns:
        The client itself in its first loop, or if it has a custom transport. In other loops a
        copy with no open connections, the same copy each time.
    """
    with _lock:
        copies = _clients.setdefault(client, _Copies())
        if not own:
            if copies.first is None:
                copies.first = weakref.ref(loop)
            if copies.first() is loop:
                return client
        if loop not in copies.by_loop:
            sync.forget_closed(copies.by_loop)
            through_aiohttp = sends_through_aiohttp(client)
            copies.by_loop[loop] = (
                client_like(client, loop) if through_aiohttp else without_connections(client)
            )
        return copies.by_loop[loop]
