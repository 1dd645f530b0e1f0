"""HTTP connections through aiohttp, which takes less CPU time than the default of OpenAI's SDK.

Used for models of OpenAI's family that are made from strings. All of them share one client per
event loop, so that models of one host share its connections.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from moa_graph._compat import client_through
from moa_graph.calling import sync

_PATIENCE = 1.0  # seconds

# A peer that is gone without a word is noticed within two minutes, as with LangChain's own client.
_PROBES = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 120_000,
}

_shared: dict[Any, _Connections] = {}
_all: list[_Connections] = []
_lock = sync.Lock()


def fast_client(loop: Any) -> Any | None:
    """Return the shared HTTP client of the running event loop.

    It is closed when the loop ends, at the latest at the end of the process.

    Args:
        loop: The running event loop.

    Returns:
        An asynchronous client for OpenAI's SDK. None without the extra `fast`, or if a proxy is
        configured, which only the SDK's default client reads from the environment.
    """
    if urllib.request.getproxies() or not _is_available():  # whose client keeps the proxies
        return None
    with _lock:
        if loop not in _shared:
            sync.forget_closed(_shared)
            _shared[loop] = _opened(loop)
        return _shared[loop].client


def client_like(client: Any, loop: Any) -> Any:
    """Return a client with the settings of another one that sends through aiohttp.

    It is closed as that of `fast_client`.

    Args:
        client: The other client.
        loop: The running event loop.
    """
    with _lock:
        return _opened(loop, client).client


@lru_cache(maxsize=1)
def _is_available() -> bool:
    if find_spec("openai") is None or find_spec("aiohttp") is None:
        return False
    try:
        client_through(_session)
    except (AttributeError, RuntimeError):  # an SDK without this transport, or without its package
        return False
    return True


def _opened(loop: Any, like: Any = None) -> _Connections:
    for one in [one for one in _all if one.is_over]:
        one.give_up()
        _all.remove(one)
    _all.append(_Connections(loop, like))
    return _all[-1]


class _Connections:
    """A client of one event loop, with its connections."""

    def __init__(self, loop: Any, like: Any = None) -> None:
        self.session: Any = None
        self._loop = loop
        self._process = os.getpid()
        self.client = client_through(self._open, like)
        if hasattr(loop, "shutdown_asyncgens"):
            self._until_end = self._closed_at_end()
            with suppress(StopIteration):
                self._until_end.asend(None).send(None)  # begins without waiting

    def _open(self, ssl_context: Any, limit: int | None) -> Any:
        self.session = _session(ssl_context, limit)
        return self.session

    async def _closed_at_end(self) -> AsyncGenerator[None]:
        """Close the connections when `asyncio.run` closes its asynchronous generators."""
        try:
            yield
        finally:
            await self.client.aclose()

    @property
    def is_over(self) -> bool:
        """Whether its event loop is closed, or belongs to the process of which this is a fork."""
        return bool(self._loop.is_closed()) or os.getpid() != self._process

    def give_up(self) -> None:
        """Forget the connections of an event loop that was closed before it could close them."""
        if self.session is None or self.session.closed or os.getpid() != self._process:
            return
        with suppress(Exception, StopIteration):  # without a loop, closing does not wait
            self.session.close().send(None)

    def close(self) -> None:
        """Close the connections at the end of the process that opened them."""
        if self.is_over:
            self.give_up()
            return
        if self.session is None or self.session.closed:
            return
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self.session.close(), self._loop).result(_PATIENCE)
        else:
            self._loop.run_until_complete(self.session.close())


def _session(ssl_context: Any, limit: int | None) -> Any:
    import aiohttp  # noqa: PLC0415 - takes 0.1 s

    connector = aiohttp.TCPConnector(
        limit=limit or 0,
        ssl=ssl_context,
        socket_factory=_socket,
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _socket(address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        with suppress(AttributeError, OSError):  # not on every system
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


@atexit.register
def _close_all() -> None:
    for connections in _all:
        with suppress(Exception):
            connections.close()
