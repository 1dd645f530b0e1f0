"""Addresses in the content of messages, which providers or local models fetch."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from moa_graph.server.settings import SETTINGS

_ADDRESS_FIELDS = re.compile(r".*ur[il]s?|source", re.IGNORECASE)
_CONTENT_FIELDS = re.compile(
    r".*(image|audio|video|document|media|pdf|file|file_?data|thumbnail)s?", re.IGNORECASE
)
_FETCHED_ELSEWHERE = ("data:", "gs:", "s3:")
"""Schemes of content in the request itself, and in a provider's own storage."""

_ABSOLUTE = re.compile(
    r"((?:[a-z][a-z0-9+.-]{,30}:){1,3})[/\\]|(https?:)|(?://|\\\\)", re.IGNORECASE
)
_IGNORED = re.compile(r"[\t\r\n]")  # browsers leave these out
_UNSAFE = re.compile(r"[\\\s\x00-\x20\x7f]")  # libraries read what has these in different ways
_AUTHORITY = re.compile(r"(?:[^@]*@)?(?P<host>\[[0-9a-f:.]*\]|[^:@%\[\]]*)(?::\d*)?", re.IGNORECASE)
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_LOCAL_ENDINGS = (
    ".localhost", ".localdomain", ".local", ".internal", ".intranet", ".lan", ".home", ".corp",
    ".private", ".home.arpa",
)  # fmt: skip
_IPV4_INSIDE = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))
_MOST_READ = 10_000  # characters of an address, whose host is at its start
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
                f"The address {address[:_LONGEST]!r} is of this machine or of a private network, "
                "or has a form that some programs read as such. Content must be at a public "
                "http(s) address, or in the request. The server's operator can allow such "
                "addresses (MOA_PRIVATE_URLS)."
            )


def _addresses_in(value: Any, field: str = "") -> Iterator[str]:
    """Yield the strings that may be addresses of content.

    Args:
        value: Value to search.
        field: Name of the field that has it.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not _is_of_tool_call(value, name):
                yield from _addresses_in(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _addresses_in(inner, field)
    elif isinstance(value, str) and (
        _ADDRESS_FIELDS.fullmatch(field)
        or (_CONTENT_FIELDS.fullmatch(field) and _is_like_an_address(value))
    ):
        yield value


def _is_of_tool_call(value: Mapping[str, Any], field: str) -> bool:
    """Return whether a field has the arguments of a tool call, which models read as text."""
    return (field == "args" and "name" in value) or (
        field == "input" and value.get("type") in ("tool_use", "server_tool_use")
    )


def _is_like_an_address(text: str) -> bool:
    beginning = _IGNORED.sub("", text[:_LONGEST].strip())
    return not beginning.startswith("//") and _ABSOLUTE.match(beginning) is not None


def is_private(address: str) -> bool:
    """Return whether an address is of this machine, of a private network, or link-local.

    An address that programs may read in different ways counts as private. Names are not looked
    up, except for those that always are local: `localhost`, and all without a dot.
    """
    address = address.strip()[:_MOST_READ]
    if address.lower().startswith(_FETCHED_ELSEWHERE):
        return False
    absolute = _ABSOLUTE.match(_IGNORED.sub("", address))
    if absolute is None:  # some programs add a scheme
        return _is_private_host(address, is_named=False)
    rest = address.removeprefix(absolute[0].rstrip("/"))
    if _UNSAFE.search(address) or not re.match("//(?!/)", rest):
        return True
    scheme = absolute[1] or absolute[2] or "http:"
    return scheme.lower() not in ("http:", "https:") or _is_private_host(rest[2:], is_named=True)


def _is_private_host(address: str, *, is_named: bool) -> bool:
    """Return whether the host of an address without its scheme is private.

    Args:
        address: The address, from its host on.
        is_named: Whether it begins with a host for certain.
    """
    found = _AUTHORITY.fullmatch(re.split("[/?#]", address, maxsplit=1)[0])
    host = _normal(found["host"]) if found else None
    if host is None:
        return is_named
    if host in _LOCAL_NAMES or host.endswith(_LOCAL_ENDINGS):
        return True
    number = _number_of(host)
    if number is not None:
        return any(not one.is_global or one.is_multicast for one in _all_of(number))
    return is_named and "." not in host


def _normal(host: str) -> str | None:
    """Return a host as programs look it up: in ASCII, with dots and without the last one."""
    if host.isascii():
        return host.rstrip(".").lower()
    try:
        return host.encode("idna").decode().rstrip(".").lower()
    except UnicodeError:
        return None


_Number = ipaddress.IPv4Address | ipaddress.IPv6Address


def _number_of(host: str) -> _Number | None:
    """Return the IP address that a host is; None for a name."""
    try:
        # This reads notations such as 127.1, 0x7f000001 and 2130706433, too.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        pass
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _all_of(number: _Number) -> list[_Number]:
    """Return an IP address, and the one inside that packets to it may reach."""
    if isinstance(number, ipaddress.IPv4Address):
        return [number]
    inside = [number.ipv4_mapped, number.sixtofour, (number.teredo or [None, None])[1]]
    if any(number in network for network in _IPV4_INSIDE):
        inside.append(ipaddress.IPv4Address(int(number) % 2**32))
    return [number, *(one for one in inside if one is not None)]
