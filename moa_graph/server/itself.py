"""Calls of this server to its own API."""

from __future__ import annotations

from functools import lru_cache

import httpx
from fastapi import FastAPI, Request

try:  # LangGraph Server's transport; httpx's does not stream
    from langgraph_api.asgi_transport import ASGITransport as _ASGITransport
except ImportError:
    _ASGITransport = None


def client_of(request: Request) -> httpx.AsyncClient:
    """Return a client of the server that received a request. It has no credentials."""
    host, port = request.scope["server"]
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{port}{request.scope.get('root_path', '')}"
    # The application can be called without a connection.
    return _client(address, request.app if _ASGITransport else None)


@lru_cache(maxsize=4)
def _client(address: str, app: FastAPI | None) -> httpx.AsyncClient:
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
