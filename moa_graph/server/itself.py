"""Calls from this server to its own API, with the credentials of the request that needs them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient
from starlette.datastructures import Headers
from starlette.types import Scope

from moa_graph._compat import on_aegra
from moa_graph.server.request_ids import HEADER

try:  # LangGraph Server's transport; httpx's does not stream
    from langgraph_api.asgi_transport import ASGITransport as _ASGITransport
except ImportError:
    _ASGITransport = None

_PASSED_ON = ("authorization", "x-api-key", HEADER)


class Itself:
    """Client of this server's own API, as the user who sends a request.

    Args:
        scope: ASGI scope of the request.
    """

    def __init__(self, scope: Scope) -> None:
        self.http, streams = _clients(*_way_to_itself(scope))
        """HTTP client, without credentials, for whole responses. It needs no connection, which a
        server that is about to stop would not accept."""
        self.client = LangGraphClient(self.http)
        self.streams = LangGraphClient(streams)
        """Client for responses that are streams."""
        given = Headers(scope=scope)
        self.headers = {name: given[name] for name in _PASSED_ON if name in given}
        """Headers to send with each call."""


def _way_to_itself(scope: Scope) -> tuple[str, str, Any]:
    """Return this server's address, the root path in it, and its application."""
    host, port = scope["server"]
    host = f"[{host}]" if ":" in host else host
    root = scope.get("root_path", "")
    return f"http://{host}:{port}{root}", root, scope["app"]


@lru_cache(maxsize=4)
def _clients(address: str, root: str, app: Any) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
    if _ASGITransport is not None and not on_aegra():
        client = _client(address, _ASGITransport(app))
        return client, client
    connections = httpx.AsyncHTTPTransport(
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        verify=False,  # plain HTTP to this process
    )
    within = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root)
    return _client(address, within), _client(address, connections)


def _client(address: str, transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    timeout = httpx.Timeout(30, read=None)  # seconds; a run may take any time
    return httpx.AsyncClient(base_url=address, transport=transport, timeout=timeout)
