"""Bounds of the JSON in requests, checked before any route reads it."""

from __future__ import annotations

import asyncio
import json
import re
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from moa_graph.server.checks.json_values import NUL, TOO_DEEP, TOO_LARGE, check_value
from moa_graph.server.checks.refusals import Refused, refuse
from moa_graph.server.checks.requests import again, has_body, read_body
from moa_graph.server.guard import path_of
from moa_graph.server.protocols.errors import PREFIX
from moa_graph.server.settings import SETTINGS

_PIECE = 2**16  # bytes that are counted at a time
_PIECES = 16  # pieces between two steps of the event loop
_OTHER_BYTE = re.compile(rb"[^\\]")
_ITS_OWN = re.compile(r"/(moa|mcp)(/.*)?")  # have errors of their own


class JsonBodies:
    """ASGI middleware that refuses requests which no route or database can take.

    It refuses more than `MOA_MAX_VALUES` values, deep nesting, numbers that are not finite or
    exceed 64 bits, and texts that are no valid Unicode or have a NUL character. A body that is not
    JSON is passed on: its route says so.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_address(scope)
            if has_body(scope):
                body = await read_body(receive) or b""
                receive = again(body, receive)
                await _check_size(body)
                if not _ITS_OWN.fullmatch(path_of(scope)):
                    _check_body(body)
        except ValueError as error:
            below_v1 = PREFIX in scope["path"]
            status = HTTPStatus.BAD_REQUEST if below_v1 else HTTPStatus.UNPROCESSABLE_ENTITY
            await refuse(Refused(status, str(error)), scope, receive, send)
        except Refused as refused:
            await refuse(refused, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _check_address(scope: Scope) -> None:
    if NUL in scope["path"] or b"%00" in scope["query_string"]:
        raise Refused(HTTPStatus.NOT_FOUND, "Not found: the address has a NUL character.")


async def _check_size(body: bytes) -> None:
    """Check the number of values, in steps between which other requests are served.

    Each value but the first one follows a comma or an opening bracket.

    Raises:
        Refused: With status 413, if there are more than `MOA_MAX_VALUES`.
    """
    start, inside, values, pieces = 0, 0, 1, 0
    while start < len(body):
        end = min(start + _PIECE, len(body))
        if body[end - 1] == ord("\\"):  # what it escapes is in the same piece
            other = _OTHER_BYTE.search(body, end)
            end = other.end() if other else len(body)
        piece = body[start:end].replace(rb"\\", b"").replace(rb"\"", b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[inside::2])
        values += sum(map(outside.count, (b",", b"[", b"{")))
        if values > SETTINGS.max_values:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The request has more than {SETTINGS.max_values:,} JSON values (MOA_MAX_VALUES).",
            )
        inside = (inside + len(parts) - 1) % 2
        start, pieces = end, pieces + 1
        if pieces % _PIECES == 0:
            await asyncio.sleep(0)


def _check_body(body: bytes) -> None:
    try:
        given = json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise ValueError(TOO_DEEP) from None
        return
    except UnicodeDecodeError:
        raise ValueError("The request's body must be JSON in UTF-8.") from None
    except ValueError:  # an integer of thousands of digits
        raise ValueError(f"The request has an integer that {TOO_LARGE}.") from None
    check_value(given)
