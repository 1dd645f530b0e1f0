"""Memory of the server's process: rare collections under load, and one when the load is over."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from moa_graph.server.background import beside
from moa_graph.server.metrics import runs_now

_OBJECTS_BETWEEN_COLLECTIONS = 50_000
_POLL = 1.0  # seconds


@asynccontextmanager
async def collected() -> AsyncIterator[None]:
    """Collect garbage rarely while runs are in progress, and wholly after the last one.

    Objects that exist at startup are excluded: they live until the server stops, and scanning
    them took a third of the CPU time under load. A run creates many short-lived objects, so the
    collections are less frequent. What they leave is freed once no run is in progress.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    async with beside(_collect_when_idle()):
        yield


async def _collect_when_idle() -> None:
    give_back = _allocator()
    ended = before = runs_now()[1]
    while True:
        await asyncio.sleep(_POLL)
        running, now = runs_now()
        # The responses of the last runs are written within a second.
        if not running and now == before != ended:
            gc.collect()
            await asyncio.to_thread(give_back)
            ended = now
        before = now


def _allocator() -> Callable[[], object]:
    """Return what gives the free memory of the C library's heap back to the system."""
    try:
        trim = ctypes.CDLL(None).malloc_trim  # of glibc
    except (OSError, AttributeError, TypeError):
        return lambda: None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)
