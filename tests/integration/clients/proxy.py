"""A proxy that ends a connection in the midst of an answer, as a broken network does."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


@asynccontextmanager
async def cutting_proxy(url: str, at: bytes) -> AsyncIterator[str]:
    """Yield the URL of a proxy for a server, which passes on answers up to a text in them."""
    upstream = urlsplit(url)

    connections = set()

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        connections.add(asyncio.current_task())
        from_server, to_server = await asyncio.open_connection(upstream.hostname, upstream.port)
        both = [
            asyncio.create_task(_pass_on(reader, to_server)),
            asyncio.create_task(_pass_on(from_server, writer, at)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task, end in zip(both, (writer, to_server), strict=True):
            task.cancel()
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as proxy:
        host, port = proxy.sockets[0].getsockname()
        yield f"http://{host}:{port}"
        await asyncio.gather(*connections)


async def _pass_on(reader: StreamReader, writer: StreamWriter, up_to: bytes | None = None) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
            if up_to is not None and up_to in data:
                return
