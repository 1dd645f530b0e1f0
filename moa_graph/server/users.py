"""Identification of the user who sends a request."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, urlsplit

import psutil

from moa_graph.server.settings import LOCAL_USER, SETTINGS

_KEYS = SETTINGS.keys
_STUDIO = ".langchain.com"


def user_of(headers: Mapping[str, str]) -> str:
    """Return the user who sends a request.

    Args:
        headers: Headers of the request, with names in lower case. The API key is in
            `authorization` (`Bearer KEY`) or `x-api-key`.

    Raises:
        PermissionError: If the request is not allowed. The message says why and what to do.
    """
    if not _KEYS:
        _check_local(headers)
        return LOCAL_USER
    scheme, _, key = headers.get("authorization", "").partition(" ")
    given = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not given:
        raise PermissionError(
            "An API key of this server is required. Send the header Authorization: Bearer KEY."
        )
    if (owner := _KEYS.owner_of(given)) is None:
        raise PermissionError("Invalid API key for this server.")
    return owner


def label_of(user: str) -> str:
    """Return a user's name as a label of a namespace of the store, which has no periods."""
    return quote(user, safe="@").replace(".", "%2E")


def _check_local(headers: Mapping[str, str]) -> None:
    """Check that a request without an API key comes from this machine."""
    if beyond := _listens_beyond_this_machine():
        raise PermissionError(
            f"This server listens on {beyond} and has no API keys: set MOA_API_KEYS, or let it "
            "listen on 127.0.0.1."
        )
    # A web site in a local browser can send requests to this server, but cannot hide its origin.
    host, origin = headers.get("host", ""), headers.get("origin")
    for place in (f"//{host}", *([origin] if origin else [])):
        name = _host_of(place)
        if not _is_local(name) and not (place == origin and _is_studio(origin)):
            raise PermissionError(
                f"This server has no API keys, so it accepts requests from this machine only, not "
                f"from {name!r}: set MOA_API_KEYS."
            )


def _is_studio(origin: str) -> bool:
    """Return whether a web site is LangGraph Studio. Over plain HTTP, anyone could pose as it."""
    return origin.startswith("https://") and f".{_host_of(origin)}".endswith(_STUDIO)


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=1)
def _listens_beyond_this_machine() -> str | None:
    """Return an address of this process that other machines can reach, or None."""
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and not _is_local(connection.laddr.ip):
            return f"{connection.laddr.ip}:{connection.laddr.port}"
    return None


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
