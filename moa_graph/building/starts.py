"""Start runs that begin at the same time one after the other.

An event loop gives each of its tasks one step in turn. If many runs began together, each of them
would send its requests only when all of them are prepared. One after the other, the first runs'
models already answer while the later runs are prepared.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import MutableMapping
from contextlib import suppress

from moa_graph.calling import sync

_STEPS = 8  # of the event loop, from the start of a run to the requests of its first layer
_LONGEST = 0.01  # seconds of a turn, if the steps of a busy event loop are long
_FOR_EACH = 0.02  # seconds; in a longer step, as many runs begin as it has times that


async def wait_for_turn() -> None:
    """Wait until the runs that began earlier in this event loop are prepared.

    A run counts as prepared after eight steps of the event loop, or 0.01 seconds. So no run waits
    for another one's models, checkpoints or caches, and at least 25 runs begin in a second.
    """
    loop = asyncio.get_running_loop()
    if (queue := _queues.get(loop)) is None:
        with _lock:
            sync.forget_closed(_queues)
            queue = _queues[loop] = _Queue()
    if queue.is_free:
        queue.begin()
        return
    turn = loop.create_future()
    queue.waiting.append(turn)
    try:
        await turn
    except asyncio.CancelledError:
        with suppress(ValueError):  # it may have its turn already
            queue.waiting.remove(turn)
        raise


class _Queue:
    """The runs that wait for their turn in one event loop."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._steps = 0
        self._begun = 0.0

    @property
    def is_free(self) -> bool:
        """Whether no run is being prepared."""
        return self._steps == 0

    def begin(self) -> None:
        """Begin a turn."""
        self._steps = _STEPS
        self._begun = time.monotonic()
        asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._steps -= 1
        seconds = time.monotonic() - self._begun
        if self._steps and seconds < _LONGEST:
            asyncio.get_running_loop().call_soon(self._step)
            return
        self._steps = 0
        left = max(1, int(seconds / _FOR_EACH))
        while self.waiting and left:
            if not (turn := self.waiting.popleft()).done():  # else its run was cancelled
                left -= 1
                turn.set_result(None)
                if self.is_free:
                    self.begin()


_queues: MutableMapping[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()
_lock = sync.Lock()
