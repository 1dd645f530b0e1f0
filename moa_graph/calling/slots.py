"""Limit the number of concurrent calls to a provider or a model."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage

from moa_graph.calling import sync
from moa_graph.errors import MoAError

_held: ContextVar[frozenset[_Slots]] = ContextVar("moa_held_slots", default=frozenset())


class CallSlots:
    """Limits of concurrent calls by provider or model; further calls wait in a queue.

    Args:
        limits: Maximum number of concurrent calls, by provider (`"ollama"`) or by model
            (`"ollama:llama3.2"`).
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = dict(limits)
        self._slots = {name: _Slots(calls) for name, calls in limits.items()}

    def __reduce__(self) -> tuple[type[CallSlots], tuple[dict[str, int]]]:
        # Another process has its own calls, so that its slots are all free.
        return CallSlots, (self._limits,)

    def __deepcopy__(self, memo: dict[int, Any]) -> CallSlots:
        # A copy in this process shares the limit: the provider counts the calls of both.
        return self

    @property
    def names(self) -> set[str]:
        """Providers and models that have a limit."""
        return set(self._slots)

    @asynccontextmanager
    async def hold(self, *names: str) -> AsyncIterator[None]:
        """Wait for a slot of each name that has a limit, and hold the slots in the context."""
        if not self._slots:
            yield
            return
        held: list[_Slots] = []
        token = None
        try:
            await self._take(names, held)
            token = _held.set(_held.get() | set(held))
            yield
        finally:
            if token is not None:
                _held.reset(token)
            for slot in held:
                slot.give_back()

    @contextmanager
    def inside(self, *names: str) -> Iterator[list[BaseCallbackHandler]]:
        """Apply the limits to chat models that are called inside one call, as by an agent or chain.

        Args:
            *names: Names for which `hold` already counts the call itself.

        Yields:
            Callbacks for the call; an empty list without limits. Slots that are still held at the
            end, because the call was cancelled, are released.
        """
        if not self._slots:
            yield []
            return
        inner = _InnerCalls(self, names)
        try:
            yield [inner]
        finally:
            inner.give_all_back()

    async def _take(self, names: Collection[str], held: list[_Slots]) -> None:
        # Take slots in sorted order, so that callers cannot deadlock. Skip slots that an outer call
        # already holds, because waiting for them would never end.
        slots = [self._slots[name] for name in sorted(set(names)) if name in self._slots]
        for slot in [slot for slot in slots if slot not in _held.get()]:
            place = slot.take()
            try:
                await sync.done(place)
            except BaseException:
                slot.give_up(place)
                raise
            held.append(slot)


class _InnerCalls(AsyncCallbackHandler):
    """Wait for a slot before each call of a chat model inside another call."""

    run_inline = True
    raise_error = True

    def __init__(self, limits: CallSlots, counted: Collection[str]) -> None:
        self._limits = limits
        self._counted = set(counted)
        self._held: dict[UUID, list[_Slots]] = {}
        self._closed = False

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Wait until the model may be called.

        Raises:
            MoAError: If the outer call was cancelled during the wait.
        """
        told = metadata or {}
        provider, model = told.get("ls_provider"), told.get("ls_model_name")
        names = {str(provider), f"{provider}:{model}"} - self._counted
        held: list[_Slots] = []
        if not self._closed:
            await self._limits._take(names, held)  # noqa: SLF001 - helper of the same module
        self._held[run_id] = held
        if self._closed:
            self._give_back(run_id)
            raise MoAError("not called: the outer call was cancelled")

    async def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Release the slots of a model that answered."""
        self._give_back(run_id)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Release the slots of a model that failed."""
        self._give_back(run_id)

    def give_all_back(self) -> None:
        """Release all slots, and reject later calls."""
        self._closed = True
        for run_id in list(self._held):
            self._give_back(run_id)

    def _give_back(self, run_id: UUID) -> None:
        for slot in self._held.pop(run_id, ()):
            slot.give_back()


class _Slots:
    """First-in, first-out semaphore for both threads and event loops."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._line: deque[Future[None]] = deque()
        self._lock = sync.Lock()

    def take(self) -> Future[None]:
        """Return a future that is done when a slot is free and taken."""
        place: Future[None] = Future()
        with self._lock:
            if self._free:
                self._free -= 1
                place.set_result(None)
            else:
                self._line.append(place)
        return place

    def give_back(self) -> None:
        """Release a slot, and give it to the next caller that still waits."""
        with self._lock:
            while self._line:
                if (place := self._line.popleft()).set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._free += 1

    def give_up(self, place: Future[None]) -> None:
        """Stop waiting for a slot; if it was already taken, release it."""
        if not place.cancel():
            self.give_back()
