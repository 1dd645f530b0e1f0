"""When is a layer done: a quorum, deadlines, and second requests to late proposers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeVar

from moa_graph.calling import sync
from moa_graph.errors import MoAError

T = TypeVar("T")

_CLEANUP = 1.0  # seconds that a cancelled call may take to close its connection
_MULTIPLE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*x\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Quorum:
    """A layer is done when that many proposers have answered, and a grace has passed.

    Args:
        proposals: How many usable proposals are enough.
        grace: Seconds that the others still have once these are there.
    """

    proposals: int
    grace: float = 0.0


@dataclass(frozen=True)
class Hedge:
    """When a proposer is late, so that it is asked a second time.

    Args:
        after: Seconds since it was asked, or a multiple of the median time of the layer's
            proposers, such as `"2x"`.
    """

    after: float | str

    def due(self, started: float, latencies: list[float], proposers: int) -> float | None:
        """Return when a proposer asked at `started` is asked again; None while that is not known.

        Args:
            started: When it was asked, in any clock.
            latencies: Seconds that the layer's other proposers took to answer, so far.
            proposers: How many the layer has.
        """
        if not isinstance(self.after, str):
            return started + self.after
        if not latencies or 2 * len(latencies) < proposers:
            return None
        return started + self._factor * median(latencies)

    @property
    def needs_median(self) -> bool:
        """Whether the moment depends on what the others take."""
        return isinstance(self.after, str)

    @property
    def _factor(self) -> float:
        match = _MULTIPLE.fullmatch(str(self.after))
        return float(match[1]) if match else 0.0


class WaitEnded(MoAError):
    """A proposer was not waited for any longer."""

    def __init__(self, status: Literal["timed_out", "abandoned"], reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class _End:
    """When waiting ends, in seconds of `time.monotonic`, and what that means."""

    at: float
    status: Literal["timed_out", "abandoned"]
    reason: str

    @property
    def cut(self) -> WaitEnded:
        return WaitEnded(self.status, self.reason)


@dataclass
class LayerWait:
    """One layer of one run, shared by its proposers; safe to use from several threads.

    Args:
        proposers: How many there are.
        quorum: How many of them are enough.
        timeout: Seconds that the layer may take, from now.
        why_timeout: What set that timeout, for people.
    """

    proposers: int
    quorum: Quorum | None = None
    timeout: float | None = None
    why_timeout: str = "the layer's timeout"

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._answered: dict[int, float] = {}
        self._quorum_at: float | None = None
        self._reserve_taken = 0
        self._lock = sync.Lock()
        self._changed: asyncio.Future[None] | None = None

    def take_reserve(self, size: int) -> int | None:
        """The next place of the layer's reserve, which has that size; None if all are taken."""
        with self._lock:
            if self._reserve_taken >= size:
                return None
            self._reserve_taken += 1
            return self._reserve_taken - 1

    @property
    def latencies(self) -> list[float]:
        """Seconds that each usable answer took, so far."""
        with self._lock:
            return list(self._answered.values())

    def answered(self, position: int, latency: float) -> None:
        """Count a usable proposal; call it in the event loop in which the others wait.

        Args:
            position: The proposer's place; each counts once.
            latency: Seconds that it took.
        """
        with self._lock:
            self._answered[position] = latency
            enough = self.quorum is not None and len(self._answered) >= self.quorum.proposals
            if enough and self._quorum_at is None:
                self._quorum_at = time.monotonic()
            changed, self._changed = self._changed, None
        if changed and not changed.done():
            changed.set_result(None)

    def check_open(self) -> None:
        """Refuse to ask another proposer when the layer is done.

        Raises:
            WaitEnded: If it is.
        """
        if (end := self._end()) and _passed(end.at):
            raise WaitEnded(end.status, f"not asked: {end.reason}")

    def until(self, timeout: float | None) -> float | None:
        """The moment (of `time.monotonic`) from which on a proposer asked now is not waited for.

        Args:
            timeout: Seconds that the proposer may take; None for no limit of its own.
        """
        moments = [] if timeout is None else [time.monotonic() + timeout]
        if self.timeout is not None:
            moments.append(self._started + self.timeout)
        return min(moments, default=None)

    async def first_answer(
        self,
        ask: Callable[[], Coroutine[Any, Any, T]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a status, not an exception
        hedge: Hedge | None = None,
    ) -> T:
        """Ask a proposer, for as long as the layer waits for it.

        Args:
            ask: Makes the request; called twice at most.
            timeout: Seconds that this proposer may take.
            hedge: When to ask again.

        Returns:
            What the first successful request returned.

        Raises:
            WaitEnded: If the layer or this proposer's time ended first; the call is cancelled.
            Exception: What the first request raised, if none succeeded.
        """
        if not (self.quorum or self.timeout or timeout or hedge):
            return await ask()
        own = None
        started = time.monotonic()
        if timeout is not None:
            own = _End(started + timeout, "timed_out", f"no answer within its {timeout:g} s")
        requests: list[asyncio.Future[T]] = [asyncio.ensure_future(ask())]
        why = "cancelled"
        try:
            while True:
                end = min(filter(None, (own, self._end())), key=lambda e: e.at, default=None)
                if end and _passed(end.at):
                    why = end.reason
                    raise end.cut
                due = hedge.due(started, self.latencies, self.proposers) if hedge else None
                if due is not None and _passed(due):
                    requests.append(asyncio.ensure_future(ask()))
                    hedge = due = None
                moments = [moment for moment in (end.at if end else None, due) if moment]
                await self._wait(requests, min(moments, default=None), hedge)
                if (done := _first(requests)) is not None:
                    why = "another request to this proposer was answered first (hedge)"
                    return done.result()
        finally:
            await _cancel(requests, why)

    async def _wait(
        self, requests: list[asyncio.Future[T]], until: float | None, hedge: Hedge | None
    ) -> None:
        """Until a request ends, that moment comes, or what it depends on has changed."""
        waited: list[Awaitable[Any]] = [r for r in requests if not r.done()]
        if (self.quorum and self._quorum_at is None) or (hedge and hedge.needs_median):
            with self._lock:
                if self._changed is None:
                    self._changed = asyncio.get_running_loop().create_future()
                waited.append(self._changed)
        timeout = None if until is None else max(0.0, until - time.monotonic())
        await asyncio.wait(
            waited,  # type: ignore[type-var]
            timeout=timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )

    def _end(self) -> _End | None:
        ends = []
        if self.timeout is not None:
            ends.append(
                _End(
                    self._started + self.timeout,
                    "timed_out",
                    f"no answer within {self.timeout:.3g} s ({self.why_timeout})",
                )
            )
        if self.quorum and self._quorum_at is not None:
            grace = f" and {self.quorum.grace:g} s of grace" if self.quorum.grace else ""
            reason = f"the layer was done with {self.quorum.proposals} answers{grace} (quorum)"
            ends.append(_End(self._quorum_at + self.quorum.grace, "abandoned", reason))
        return min(ends, key=lambda e: e.at, default=None)


def _passed(moment: float) -> bool:
    return time.monotonic() >= moment


def _first(requests: list[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """The request that settles the matter: one that succeeded, or the first if all failed."""
    done = [r for r in requests if r.done()]
    good = next((r for r in done if not r.cancelled() and r.exception() is None), None)
    if good is None and len(done) == len(requests):
        return requests[0]
    return good


async def _cancel(requests: list[asyncio.Future[T]], why: str) -> None:
    """End what still runs, and give it a moment to close its connections."""
    running = [r for r in requests if not r.done()]
    for request in running:
        request.cancel(why)
    if running:
        await asyncio.wait(running, timeout=_CLEANUP)
    for request in requests:
        if request.done() and not request.cancelled():
            request.exception()  # retrieved, so that asyncio does not warn
