"""Run the same coroutines in sync and async runs; no other module distinguishes the two.

The nodes of a graph are coroutines. In an async run they run in the user's event loop. In a sync
run, this module runs them in one of two ways. If nothing may have to be cancelled, a coroutine runs
to its end in the caller's thread: functions of this module that it awaits block, and there is no
event loop. If a quorum or a timeout may cancel a call, the coroutine runs on one event loop in a
background thread, because only a task of an event loop can be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    MutableMapping,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.errors import MoAError

T = TypeVar("T")
P = ParamSpec("P")

_FROM_INSIDE = (
    "This graph was called synchronously (invoke, stream or batch) from inside a run that the same "
    "thread would have to serve: it would wait for itself. Call ainvoke, astream or abatch there, "
    "or call it in a thread of its own (asyncio.to_thread)."
)


class CalledFromInside(MoAError):
    """A sync call of a graph would block the event loop that it waits for."""

    def __init__(self) -> None:
        super().__init__(_FROM_INSIDE)


Cancelled = asyncio.CancelledError
"""Raised in a coroutine that is cancelled."""

_blocking: ContextVar[bool] = ContextVar("moa_blocking", default=False)


def run(coroutine: Coroutine[Any, Any, T], *, cancellable: bool = True) -> T:
    """Run a node's coroutine in a sync run, in the caller's context, and wait for it.

    Args:
        coroutine: The coroutine.
        cancellable: Whether a call inside may have to be cancelled. If not, the coroutine may
            await only functions of this module.

    Returns:
        The result of the coroutine; its exceptions are raised here.

    """
    if not cancellable:
        return _to_its_end(coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return _result_of(future)
    except _Exit as ended:
        raise ended.error from None
    except BaseException:
        future.cancel()  # keyboard interrupt: stop the call
        raise


class _Exit(BaseException):
    """Carries a SystemExit or KeyboardInterrupt to the caller; unwrapped, it would end the loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _result_of(future: Future[T]) -> T:
    thread = _thread
    while thread is not None and thread.is_alive():
        with suppress(TimeoutError):
            return future.result(None if future.done() else _LOOK_AGAIN)
        if future.done():
            return future.result()
    if future.done():
        return future.result()
    raise RuntimeError("the background event loop stopped during a sync run")


def _to_its_end(coroutine: Coroutine[Any, Any, T]) -> T:
    token = _blocking.set(True)
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        _blocking.reset(token)
        coroutine.close()
    raise RuntimeError("a coroutine without an event loop awaited something that needs one")


def refuse_from_inside() -> None:
    """Check that a sync run does not start in the thread of the background event loop.

    Raises:
        CalledFromInside: If this is that thread.
    """
    if is_background():
        raise CalledFromInside


def is_background() -> bool:
    """Return whether the running event loop is the background loop of sync runs."""
    if _started is None:
        return False
    try:
        return asyncio.get_running_loop() is _started
    except RuntimeError:
        return False


def current_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop whose connections to use; None in a thread without an event loop."""
    if _blocking.get():
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def forget_closed(of_loops: MutableMapping[Any, Any]) -> None:
    """Remove the entries of event loops that are closed."""
    for loop in [loop for loop in of_loops if loop.is_closed()]:
        of_loops.pop(loop, None)


# --- functions that nodes await ---------------------------------------------------------------


def call(
    model: Runnable[Any, Any],
    given: Any,
    config: RunnableConfig,
    *,
    in_thread: bool = False,
    **kwargs: Any,
) -> Coroutine[Any, Any, Any]:
    """Call a model; await the result.

    Args:
        model: The model.
        given: Input of the model.
        config: Configuration of the run.
        in_thread: Whether a sync run calls `invoke` in a thread. A nested graph needs this, as its
            checkpointer may have no async methods. Such a thread cannot be cancelled.
        **kwargs: Further arguments of `invoke`.
    """
    if not _blocking.get() and not is_background():
        return model.ainvoke(given, config, **kwargs)
    return _call_in_sync_run(model, given, config, in_thread, kwargs)


async def _call_in_sync_run(
    model: Runnable[Any, Any],
    given: Any,
    config: RunnableConfig,
    in_thread: bool,
    kwargs: Mapping[str, Any],
) -> Any:
    if _blocking.get():
        return _outside(model.invoke, given, config, **kwargs)
    try:
        if in_thread:
            return await asyncio.to_thread(model.invoke, given, config, **kwargs)
        return await model.ainvoke(given, config, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        raise _Exit(error) from error


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a thread, such as one that loads weights or a user's function."""
    if _blocking.get():
        return _outside(function, *args, **kwargs)
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        if is_background():
            raise _Exit(error) from error
        raise


async def either(blocking: Callable[[], T], waiting: Callable[[], Awaitable[T]]) -> T:
    """Call the sync function in a sync run and the async one in an async run.

    Args:
        blocking: The sync function, such as `cache.get`.
        waiting: The async function, such as `cache.aget`.
    """
    if _blocking.get():
        return _outside(blocking)
    if is_background():
        return await asyncio.to_thread(blocking)
    return await waiting()


async def sleep(seconds: float) -> None:
    """Wait for a number of seconds."""
    if _blocking.get():
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop
    else:
        await asyncio.sleep(seconds)


async def done(future: Future[T]) -> T:
    """Wait for a future that another thread or event loop sets.

    Raises:
        CancelledError: If the waiting task is cancelled.
    """
    if _blocking.get():
        return future.result()
    return await asyncio.wrap_future(future)


async def run_workers(work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Run a coroutine function several times at once, until all have ended.

    Args:
        work: The function; its calls usually share an iterator.
        count: Number of calls.

    Raises:
        BaseException: The first error of a call. The others are cancelled, and have ended.
    """
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently, and wait for all of them."""
    return list(await asyncio.gather(*coroutines))


# --- tasks beside a node; they need an event loop ----------------------------------------------

Task = asyncio.Task
"""A coroutine that runs in the background."""
Lock = threading.Lock
"""Lock for data that several threads share."""


def start(coroutine: Coroutine[Any, Any, T]) -> Task[T]:
    """Start a coroutine as a background task."""
    return asyncio.get_running_loop().create_task(coroutine)


def cancel(task: Task[Any]) -> None:
    """Cancel a task; can be called from any thread."""
    loop = task.get_loop()
    if loop is current_loop():
        task.cancel()
    elif not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


async def until_either(task: Task[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
    """Wait until a task or a coroutine ends, then cancel the coroutine; the task keeps running."""
    other = asyncio.ensure_future(coroutine)
    await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
    other.cancel()


def later(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """Call a function after a number of seconds; return a function that cancels this."""
    return asyncio.get_running_loop().call_later(seconds, function).cancel


def is_cancelled() -> bool:
    """Return whether the running task was cancelled; False in a thread without a task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and bool(task.cancelling())


class Signal:
    """Wake all waiting tasks when something has happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def give(self) -> None:
        """Wake all tasks that are waiting now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until `give` is called, at most for this many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


class Channel(Generic[T]):
    """Queue from one coroutine to another; None ends it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()

    def write(self, value: T | None) -> None:
        """Add a value; None ends the channel."""
        self._queue.put_nowait(value)

    async def read(self) -> AsyncIterator[T]:
        """Yield each value as it arrives."""
        while (value := await self._queue.get()) is not None:
            yield value


def _outside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call foreign code without the blocking mode, because it may run coroutines itself."""
    token = _blocking.set(False)
    try:
        return function(*args, **kwargs)
    finally:
        _blocking.reset(token)


# --- the background event loop ----------------------------------------------------------------


class _DaemonThreads(ThreadPoolExecutor):
    """Run each call in its own daemon thread, so that the process can end without waiting for it.

    Models without async methods run here. Such a call cannot be cancelled.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except (SystemExit, KeyboardInterrupt) as error:
                    future.set_exception(_Exit(error))
                except BaseException as error:  # noqa: BLE001 - the waiting side raises it
                    future.set_exception(error)

        threading.Thread(target=work, name="moa_graph-call", daemon=True).start()
        return future


_started: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_lock = threading.Lock()
_LOOK_AGAIN = 5.0  # seconds


def _loop() -> asyncio.AbstractEventLoop:
    global _started, _thread  # noqa: PLW0603 - one loop per process, made on first use
    with _lock:
        if _started is None or _thread is None or not _thread.is_alive():
            _started = asyncio.new_event_loop()
            _started.set_default_executor(_DaemonThreads())
            _thread = threading.Thread(target=_started.run_forever, name="moa_graph", daemon=True)
            _thread.start()
        return _started


def _forget() -> None:
    """Reset the loop in a forked process, which has no thread for it and makes its own."""
    global _started, _thread, _lock
    _started, _thread, _lock = None, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
