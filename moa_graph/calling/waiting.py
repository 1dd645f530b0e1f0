"""Decide when a layer is done: quorum, timeouts, and second requests to slow proposers."""

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

_closing: set[asyncio.Future[Any]] = set()  # asyncio itself keeps weak references only

_CLOSING = 0.05  # seconds that the layer waits for a cut call to close its connection
_CLOSING_AT_END = 1.0  # the same if the whole run is cancelled, and its event loop may end
_CANCELLED = "cancelled"
_MULTIPLE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*x\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Quorum:
    """Finish a layer when enough proposers have answered and a grace period has passed.

    Args:
        proposals: Number of usable proposals that is enough.
        grace: Seconds to wait for the other proposers after that.
    """

    proposals: int
    grace: float = 0.0


@dataclass(frozen=True)
class Hedge:
    """Send a second request to a proposer that is slow.

    Args:
        after: Seconds after the first request, or a multiple of the median response time of
            the layer's proposers, such as `"2x"`.
    """

    after: float | str

    def due(self, started: float, latencies: list[float], proposers: int) -> float | None:
        """Return the time of the second request; None while it is not known.

        Args:
            started: Time of the first request, of any clock.
            latencies: Seconds that each of the layer's proposers took to answer, so far.
            proposers: Number of proposers in the layer.
        """
        if not isinstance(self.after, str):
            return started + self.after
        if not latencies or 2 * len(latencies) < proposers:
            return None
        return started + self._factor * median(latencies)

    @property
    def needs_median(self) -> bool:
        """Whether the time of the second request depends on the other proposers."""
        return isinstance(self.after, str)

    @property
    def _factor(self) -> float:
        match = _MULTIPLE.fullmatch(str(self.after))
        return float(match[1]) if match else 0.0


class WaitEnded(MoAError):
    """The layer stopped waiting for a proposer."""

    def __init__(self, status: Literal["timed_out", "abandoned"], reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class _End:
    """Time at which waiting ends (of `time.monotonic`), with the resulting status and reason."""

    at: float
    status: Literal["timed_out", "abandoned"]
    reason: str

    @property
    def cut(self) -> WaitEnded:
        return WaitEnded(self.status, self.reason)


@dataclass
class LayerWait:
    """State of one layer of one run, shared by its proposers; thread-safe.

    Args:
        proposers: Number of proposers.
        quorum: Number of proposals that is enough; None to wait for all.
        timeout: Seconds that the layer may take, from now.
        why_timeout: Source of the timeout, for messages.
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
        """Return the index of the layer's next unused reserve model; None if all are used.

        Args:
            size: Number of reserve models.
        """
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
        """Count a usable proposal; call this in the event loop in which the other proposers wait.

        Args:
            position: Index of the proposer; each is counted once.
            latency: Seconds that the proposer took.
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
        """Check that the layer is not done, before another proposer is asked.

        Raises:
            WaitEnded: If the layer is done.
        """
        if (end := self._end()) and _passed(end.at):
            raise WaitEnded(end.status, f"not called: {end.reason}")

    def until(self, timeout: float | None) -> float | None:
        """Return the deadline (of `time.monotonic`) of a proposer that is asked now.

        Args:
            timeout: Seconds that the proposer may take; None without a limit of its own.
        """
        moments = [] if timeout is None else [time.monotonic() + timeout]
        if self.timeout is not None:
            moments.append(self._started + self.timeout)
        return min(moments, default=None)

    def first_answer(
        self,
        ask: Callable[[], Coroutine[Any, Any, T]],
        *,
        timeout: float | None = None,
        hedge: Hedge | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Ask a proposer, and cancel the request when the layer stops waiting for it.

        Args:
            ask: Function that makes the request; called at most twice.
            timeout: Seconds that this proposer may take.
            hedge: When to make a second request.

        Returns:
            The result of the first successful request.

        Raises:
            WaitEnded: If the layer or this proposer's timeout ends first; the call is cancelled.
            Exception: If no request succeeds; the error is that of the first request.
        """
        if not (self.quorum or self.timeout or timeout or hedge):
            return ask()
        return self._first_answer(ask, timeout, hedge)

    async def _first_answer(
        self,
        ask: Callable[[], Coroutine[Any, Any, T]],
        timeout: float | None,  # noqa: ASYNC109 - a status, not an exception
        hedge: Hedge | None,
    ) -> T:
        own = None
        started = time.monotonic()
        if timeout is not None:
            own = _End(
                started + timeout, "timed_out", f"no answer within the proposer's {timeout:g} s"
            )
        requests: list[asyncio.Future[T]] = [asyncio.ensure_future(ask())]
        why = _CANCELLED
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
        """Wait until a request ends, `until` is reached, or another proposer has answered."""
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
            reason = f"the layer ended with {self.quorum.proposals} answers{grace} (quorum)"
            ends.append(_End(self._quorum_at + self.quorum.grace, "abandoned", reason))
        return min(ends, key=lambda e: e.at, default=None)


def _passed(moment: float) -> bool:
    return time.monotonic() >= moment


def _first(requests: list[asyncio.Future[T]]) -> asyncio.Future[T] | None:
    """Return a request that succeeded, or the first if all failed; None if neither applies."""
    done = [r for r in requests if r.done()]
    good = next((r for r in done if not r.cancelled() and r.exception() is None), None)
    if good is None and len(done) == len(requests):
        return requests[0]
    return good


async def _cancel(requests: list[asyncio.Future[T]], why: str) -> None:
    """Cancel running requests, and wait briefly so that they can close their connections.

    The next layer does not wait for those that take longer: they go on closing beside it.
    """
    running = [r for r in requests if not r.done()]
    for request in running:
        request.cancel(why)
    if running:
        await asyncio.wait(running, timeout=_CLOSING_AT_END if why == _CANCELLED else _CLOSING)
    for request in requests:
        _closing.add(request)
        request.add_done_callback(_closed)


def _closed(request: asyncio.Future[Any]) -> None:
    _closing.discard(request)
    if not request.cancelled():
        request.exception()  # retrieve it, so that asyncio does not warn
