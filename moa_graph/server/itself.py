"""Calls of this server to its own API."""

from __future__ import annotations

from functools import lru_cache

import httpx
from fastapi import FastAPI, Request

from moa_graph._compat import on_aegra

try:  # LangGraph Server's transport; httpx's does not stream
    from langgraph_api.asgi_transport import ASGITransport as _ASGITransport
except ImportError:
    _ASGITransport = None


def client_of(request: Request) -> httpx.AsyncClient:
    """Return a client of the server that received a request. It has no credentials.

    It needs no connection, which a server that is about to stop would not accept. It gives whole
    responses only.
    """
    within, _ = _clients(*_way_to_itself(request))
    return within


def stream_client_of(request: Request) -> httpx.AsyncClient:
    """Return a client like `client_of`, for responses that are streams."""
    _, streams = _clients(*_way_to_itself(request))
    return streams


def _way_to_itself(request: Request) -> tuple[str, str, FastAPI]:
    """Return this server's address, the root path in it, and its application."""
    host, port = request.scope["server"]
    host = f"[{host}]" if ":" in host else host
    root = request.scope.get("root_path", "")
    return f"http://{host}:{port}{root}", root, request.app


@lru_cache(maxsize=4)
def _clients(address: str, root: str, app: FastAPI) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
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
