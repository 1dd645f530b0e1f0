"""Send what is meant for a server on this machine directly, and never to a proxy."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from moa_graph.models.providers import PROVIDERS, Environment
from moa_graph.models.runnables import chooses_transport

_URLS = ("base", "url", "endpoint")  # parts of the names of arguments with a URL
_OPENAI = {"openai", "azure_openai", "together", "deepseek", "xai"}
"""Providers whose chat models take the HTTP clients of OpenAI's SDK."""
_HTTPX = {"ollama": "client_kwargs"}
"""Providers whose chat models take arguments of the HTTP clients that they make."""


def address_here(host: str) -> str | None:
    """Return the address of a host if it is this machine; None if it is another one.

    No name is looked up: of names, only `localhost` and those that end in `.localhost` are here.

    Args:
        host: A name or an address, such as `"localhost"`, `"127.1"`, `"::1"` or `"0.0.0.0"`.

    Returns:
        The loopback address. For a name, and for an address that stands for all of the machine's
        own, this is `"127.0.0.1"`.
    """
    name = host.strip().rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        found = socket.getaddrinfo(name, 0, flags=socket.AI_NUMERICHOST)
        address = ipaddress.ip_address(found[0][4][0])
    except (OSError, ValueError):  # a name, or no address
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        return "127.0.0.1"
    return str(address) if address.is_loopback else None


def is_here(url: str) -> bool:
    """Return whether a URL is one of this machine."""
    try:
        host = urlsplit(url.strip()).hostname
    except ValueError:
        return False
    return bool(host) and address_here(str(host)) is not None


def direct(provider: str, params: Mapping[str, Any], environment: Environment) -> dict[str, Any]:
    """Return arguments with which a chat model asks a server on this machine without a proxy.

    Args:
        provider: Name of the provider, as LangChain spells it.
        params: Arguments of the chat model; those that choose its transport win.
        environment: Environment variables, which may have the base URL.

    Returns:
        Further arguments; none if the server is elsewhere, or no proxy is configured.
    """
    if not is_here(_url_in(provider, params, environment)):
        return {}
    if provider in _HTTPX:
        name = _HTTPX[provider]
        return {name: {"trust_env": False, **(params.get(name) or {})}}
    if provider not in _OPENAI or chooses_transport(params):
        return {}
    without: dict[str, Any] = {"openai_proxy": None}  # and not that of OPENAI_PROXY
    return without | _clients(os.getpid()) if urllib.request.getproxies() else without


def _url_in(provider: str, params: Mapping[str, Any], environment: Environment) -> str:
    for name, value in params.items():
        if isinstance(value, str) and "://" in value and any(part in name for part in _URLS):
            return value
    if provider == "ollama":
        host = environment.get("OLLAMA_HOST", "").strip() or "127.0.0.1"
        return host if "://" in host else f"http://{host}"
    known = PROVIDERS.get(provider)
    return known.base_in(environment) if known else ""


@lru_cache(maxsize=1)
def _clients(process: int) -> dict[str, Any]:
    """Return the clients of a process; a fork does not share the connections of its parent."""
    del process
    import openai  # noqa: PLC0415 - takes long
    from langchain_openai.chat_models.base import BaseChatOpenAI  # noqa: PLC0415 - takes long

    # Without the environment, a client would also ignore SSL_CERT_FILE; this context reads it.
    given: dict[str, Any] = {"trust_env": False, "verify": ssl.create_default_context()}
    clients: dict[str, Any] = {
        "http_client": openai.DefaultHttpxClient(**given),
        "http_async_client": openai.DefaultAsyncHttpxClient(**given),
    }
    if "http_socket_options" in BaseChatOpenAI.model_fields:
        clients["http_socket_options"] = ()  # otherwise a warning says that the proxy is not used
    return clients
