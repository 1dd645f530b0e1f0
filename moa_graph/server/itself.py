"""Calls from this server to its own API, with the credentials of the request that needs them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import httpx
from langgraph_sdk.client import LangGraphClient
from starlette.datastructures import Headers
from starlette.types import Scope

from moa_graph.server.request_ids import HEADER

try:  # LangGraph Server's transport; httpx's does not stream
    from langgraph_api.asgi_transport import ASGITransport as _ASGITransport
except ImportError:
    _ASGITransport = None

LANGGRAPH_SERVER = _ASGITransport is not None
"""Whether this server is LangGraph Server, and not Aegra."""
_PASSED_ON = ("authorization", "x-api-key", HEADER)


class Itself:
    """Client of this server's own API, as the user who sends a request.

    Args:
        scope: ASGI scope of the request.
    """

    def __init__(self, scope: Scope) -> None:
        self.http = _http(*_way_to_itself(scope))
        """HTTP client, without credentials."""
        self.client = LangGraphClient(self.http)
        given = Headers(scope=scope)
        self.headers = {name: given[name] for name in _PASSED_ON if name in given}
        """Headers to send with each call."""


def _way_to_itself(scope: Scope) -> tuple[str, Any]:
    """Return this server's URL, and its application if it can be called without a connection."""
    host, port = scope["server"]
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}{scope.get('root_path', '')}"
    return address, scope["app"] if _ASGITransport else None


@lru_cache(maxsize=4)
def _http(address: str, app: Any) -> httpx.AsyncClient:
    transport: httpx.AsyncBaseTransport
    if app is not None:
        transport = _ASGITransport(app)
    else:
        transport = httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            verify=False,  # plain HTTP to this process
        )
    timeout = httpx.Timeout(30, read=None)  # seconds; a run may take any time
    return httpx.AsyncClient(base_url=address, transport=transport, timeout=timeout)
