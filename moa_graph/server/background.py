"""Tasks that run as long as the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run a coroutine as a task while the context is open."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
