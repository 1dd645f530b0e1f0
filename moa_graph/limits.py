"""How many calls a provider or a model gets at once."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager

from moa_graph import sync


class CallLimits:
    """The most calls in flight, by provider or by model; whoever comes later waits in line.

    Give the same object to several graphs when they share what is behind, such as one GPU. In
    one process, it holds over all their runs, synchronous or not.

    Args:
        limits: By provider (`{"ollama": 2}`) or by model (`{"ollama:llama3.2": 1}`): how many
            calls at once, at least 1. A call must pass both where both are given.

    Raises:
        TypeError: If it is no mapping from names to whole numbers.
        ValueError: If a number is below 1.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        if not isinstance(limits, Mapping):
            raise TypeError(
                "max_concurrent_calls must say how many calls each provider or model gets at "
                f"once, such as {{'ollama': 1}}, not {limits!r}."
            )
        for name, calls in limits.items():
            if not isinstance(name, str) or isinstance(calls, bool) or not isinstance(calls, int):
                raise TypeError(
                    f"max_concurrent_calls={{{name!r}: {calls!r}}} must be a name and a whole "
                    "number."
                )
            if calls < 1:
                raise ValueError(f"max_concurrent_calls={{{name!r}: {calls}}} must be at least 1.")
        self._slots = {name: _Slots(calls) for name, calls in limits.items()}

    @property
    def names(self) -> set[str]:
        """The providers and models that are limited."""
        return set(self._slots)

    @asynccontextmanager
    async def hold(self, *names: str) -> AsyncIterator[None]:
        """Wait for a place at each of these that is limited, and keep it meanwhile."""
        held: list[_Slots] = []
        try:
            for slot in self._of(names) if self._slots else ():
                place = slot.take()
                try:
                    await sync.done(place)
                except BaseException:
                    slot.give_up(place)
                    raise
                held.append(slot)
            yield
        finally:
            for slot in held:
                slot.give_back()

    def _of(self, names: tuple[str, ...]) -> list[_Slots]:
        # Always in the same order, so that nobody waits in a circle.
        return [self._slots[name] for name in sorted(set(names)) if name in self._slots]


class _Slots:
    """A semaphore for threads and event loops alike, first come first served."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._line: deque[Future[None]] = deque()
        self._lock = sync.Lock()

    def take(self) -> Future[None]:
        """A place: done as soon as it is there."""
        place: Future[None] = Future()
        with self._lock:
            if self._free:
                self._free -= 1
                place.set_result(None)
            else:
                self._line.append(place)
        return place

    def give_back(self) -> None:
        """The place goes to the next who still waits for it."""
        with self._lock:
            while self._line:
                if (place := self._line.popleft()).set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._free += 1

    def give_up(self, place: Future[None]) -> None:
        """Nobody waits for that place any more; if it was there already, it goes on."""
        if not place.cancel():
            self.give_back()
