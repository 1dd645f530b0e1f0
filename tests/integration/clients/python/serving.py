"""The frame of a client's script: a request a line on standard input, a result a line on output.

A request is a JSON object: what to `do` ("text", "stream", "cancel", "tools", "structured" or
"images"), the `model`, the `question`, the `url` of the server, the API `key`, and which `kind` of client, if a script has
several. A result has the `text`, the `pieces` of
a stream, the `value` of a structured answer, the `usage`, or the `error` that the client raised.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A picture of one pixel."""
DATA_URL = f"data:image/png;base64,{PNG}"


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


def search(query: str) -> str:
    """Search the city's events."""
    return f"found {query}"


PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {
    "name": "search",
    "description": search.__doc__,
    "parameters": PARAMETERS,
}
"""The tool of the tests, in OpenAI's form."""


class Client:
    """What a client's script defines. Methods may be asynchronous."""

    usage: tuple[int, int] | None = None
    """Input and output tokens of the last answer, as the client tells them."""

    def text(self, model: str, question: str) -> Any:
        """Return the text of an answer."""
        raise NotImplementedError

    def stream(self, model: str, question: str) -> Any:
        """Yield the pieces of an answer.

        To abort it, an asynchronous one is cancelled, and another one is closed.
        """
        raise NotImplementedError

    def tools(self, model: str, question: str) -> Any:
        """Answer with the tool `search`, called as often as the model wants; return the text."""
        raise NotImplementedError

    def structured(self, model: str, question: str) -> Any:
        """Return an answer in the form of `Weather`."""
        raise NotImplementedError

    def images(self, model: str, question: str) -> Any:
        """Return the text of an answer to a question with the picture."""
        raise NotImplementedError


def serve(make: Any) -> None:
    """Carry out the requests.

    Args:
        make: Makes a client of the URL of a server, an API key and, if it has kinds, the kind.
    """
    output, sys.stdout = sys.stdout, sys.stderr  # some packages print advice
    asyncio.run(_serve(make, output))


async def _serve(make: Any, output: Any) -> None:
    clients: dict[tuple[str, ...], Client] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        result: dict[str, Any] = {}
        try:
            given = (asked["url"], asked["key"], *filter(None, [asked["kind"]]))
            if given not in clients:
                clients[given] = make(*given)
            await _do(clients[given], asked, result)
        except Exception as error:
            result |= {"error": type(error).__name__, "message": " ".join(_said(error))}
        output.write(json.dumps(result) + "\n")
        output.flush()


def _said(error: BaseException | None) -> Iterator[str]:
    """Yield the messages and notes of an error and of what it was raised from."""
    while error is not None:
        yield from (str(error), *getattr(error, "__notes__", ()))
        error = error.__cause__


async def _do(client: Client, asked: dict[str, Any], result: dict[str, Any]) -> None:
    client.usage = None
    about = asked["model"], asked["question"]
    match asked["do"]:
        case "stream" | "cancel":
            pieces = result["pieces"] = []
            only_first = asked["do"] == "cancel"
            stream = client.stream(*about)
            if not hasattr(stream, "__aiter__"):
                _read(stream, pieces, only_first=only_first)
            elif only_first:
                await _abort(stream, pieces)
            else:
                await _aread(stream, pieces)
        case "structured":
            value = await _settled(client.structured(*about))
            result["value"] = value.model_dump() if isinstance(value, BaseModel) else value
        case do:
            result["text"] = await _settled(getattr(client, do)(*about))
    result["usage"] = client.usage


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _read(stream: Any, pieces: list[str], *, only_first: bool) -> None:
    for piece in filter(None, stream):
        pieces.append(piece)
        if only_first:
            break
    stream.close()


async def _aread(stream: Any, pieces: list[str], begun: asyncio.Event | None = None) -> None:
    async for piece in stream:
        pieces += [piece] if piece else []
        if pieces and begun:
            begun.set()


async def _abort(stream: Any, pieces: list[str]) -> None:
    """Cancel the task that reads a stream, once it has a piece."""
    begun = asyncio.Event()
    task = asyncio.create_task(_aread(stream, pieces, begun))
    task.add_done_callback(lambda _: begun.set())
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
