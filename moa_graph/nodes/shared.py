"""Objects that the nodes of one run share in this process: clock, layers and budget ledger.

LangGraph gives a node only the state, and the state changes only between layers. Parallel nodes
share objects here, with a key that LangGraph gives to all nodes of one run.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from langgraph.runtime import RunControl

from moa_graph.calling import sync
from moa_graph.calling.budget import Ledger
from moa_graph.calling.waiting import LayerWait

_ABANDONED = 10.0  # seconds without an active node, after which a run counts as interrupted
_MOST_UNENDED = 10_000  # failed runs leave a record, so the oldest are dropped above this number


class Live(Protocol):
    """A proposal that is read while it is written."""

    def cancel(self) -> None:
        """Stop writing."""


@dataclass
class Run:
    """One run of one graph, since its first node in this process."""

    control: RunControl | None
    """LangGraph's object of the run. The reference keeps its `id()` unique."""
    started: float = field(default_factory=time.monotonic)
    """Start time, from `time.monotonic`."""
    _layers: dict[tuple[int, str], LayerWait] = field(default_factory=dict)
    live: dict[str, Live] = field(default_factory=dict)
    """Proposals that are read while they are written, by node."""
    _at_work: int = 0
    _call_off: Callable[[], None] | None = None
    _idle: sync.Signal | None = None
    _writers: int = 0
    _ledger: Ledger | None = None
    _lock: sync.Lock = field(default_factory=sync.Lock)

    def layer(self, number: int, checkpoint_id: str, make: Callable[[], LayerWait]) -> LayerWait:
        """Return the `LayerWait` of a layer; the first proposer that requests it creates it."""
        with self._lock:
            key = number, checkpoint_id
            if key not in self._layers:
                self._layers[key] = make()
            return self._layers[key]

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Count an active node. Cancel live proposals after a time without an active node."""
        self._at_work += 1
        if self._call_off is not None:
            self._call_off()
            self._call_off = None
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work and self.live:
                self._call_off = sync.later(_ABANDONED, self.close)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count a node that writes a piece; `written` waits for these nodes."""
        self._writers += 1
        try:
            yield
        finally:
            self._writers -= 1
            if not self._writers and self._idle:
                self._idle.give()
                self._idle = None

    async def written(self) -> None:
        """Wait until no node writes a piece."""
        if self._writers:
            self._idle = self._idle or sync.Signal()
            await self._idle.wait()

    def close(self) -> None:
        """Cancel all live proposals."""
        for live in self.live.values():
            live.cancel()
        self.live.clear()

    def ledger(self, make: Callable[[], Ledger]) -> Ledger:
        """Return the run's budget ledger; the first node that requests it creates it."""
        with self._lock:
            if self._ledger is None:
                self._ledger = make()
            return self._ledger


_opened: ContextVar[list[tuple[RunControl | None, str]] | None] = ContextVar(
    "moa_runs", default=None
)


class RunsInProgress:
    """The runs of one graph in this process."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[int, str], Run] = OrderedDict()
        self._lock = sync.Lock()

    def of(self, control: RunControl | None, namespace: str) -> Run:
        """Return the run of a node.

        Args:
            control: `runtime.control`.
            namespace: The run's checkpoint namespace in its parent graphs.
        """
        key = id(control), namespace
        with self._lock:
            if key not in self._runs:
                self._runs[key] = Run(control)
                if (opened := _opened.get()) is not None:
                    opened.append((control, namespace))
                while len(self._runs) > _MOST_UNENDED:
                    self._runs.popitem(last=False)
            return self._runs[key]

    @contextmanager
    def ending(self) -> Iterator[Callable[[], object]]:
        """Remove the runs that start inside this context when it ends, also after an error.

        Yields:
            A function to call before each step, because other runs may share the same context.
        """
        opened: list[tuple[RunControl | None, str]] = []
        try:
            yield partial(_opened.set, opened)
        finally:
            for control, namespace in opened:
                self.end(control, namespace)

    def end(self, control: RunControl | None, namespace: str) -> None:
        """Remove a run that has ended."""
        with self._lock:
            run = self._runs.pop((id(control), namespace), None)
        if run is not None and run.live:
            run.close()

    def __len__(self) -> int:
        return len(self._runs)
