"""Addresses in the content of messages, which providers or local models fetch."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from moa_graph.server.settings import SETTINGS

_FIELDS = ("url", "image_url", "file_url", "source")
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_LOCAL_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_LONGEST = 100  # characters of an address in an error


def check_addresses(given: Any) -> None:
    """Check that no content is at an address of this machine or of its private network.

    A model that fetches it could reach services there that the client cannot.

    Args:
        given: Input of a run, or a part of it, at any depth.

    Raises:
        ValueError: If there is such an address, and `MOA_PRIVATE_URLS` is not set.
    """
    if SETTINGS.private_urls:
        return
    for address in _addresses_in(given):
        if is_private(address):
            raise ValueError(
                f"The address {address[:_LONGEST]!r} is of this machine or of a private network. "
                "The server's operator can allow such addresses (MOA_PRIVATE_URLS)."
            )


def _addresses_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _FIELDS and isinstance(inner, str):
                yield inner
            else:
                yield from _addresses_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _addresses_in(inner)


def is_private(address: str) -> bool:
    """Return whether an address is of this machine, of a private network, or link-local.

    Names are not looked up, except for those that always are local, such as `localhost`.
    """
    if address.startswith("data:"):
        return False
    try:
        host = (urlsplit(address.strip()).hostname or "").rstrip(".").lower()
    except ValueError:
        return True  # an invalid address may be read in another way elsewhere
    if host in _LOCAL_NAMES or host.endswith(_LOCAL_ENDINGS):
        return True
    number: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        # This reads notations such as 127.1, 0x7f000001 and 2130706433, too.
        number = ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        try:
            number = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
    inside = getattr(number, "ipv4_mapped", None) or getattr(number, "sixtofour", None)
    return any(not one.is_global or one.is_multicast for one in (number, inside) if one)
