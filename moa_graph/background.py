"""An event loop for synchronous runs: only what runs on one can be cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop in the background, in the caller's context, and wait for it.

    Args:
        coroutine: What to run; it must not wait for the calling thread.

    Returns:
        What it returns; what it raises is raised here.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt from the keyboard: nobody waits any more
        raise


class _DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, which the end of the process does not wait for.

    A model without an async side runs here; it cannot be cancelled, only left alone.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - the waiting side raises it
                    future.set_exception(error)

        threading.Thread(target=work, name="moa_graph-call", daemon=True).start()
        return future


_started: asyncio.AbstractEventLoop | None = None
_lock = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    global _started  # noqa: PLW0603 - one loop a process, made when first needed
    with _lock:
        if _started is None:
            _started = asyncio.new_event_loop()
            _started.set_default_executor(_DaemonThreads())
            threading.Thread(target=_started.run_forever, name="moa_graph", daemon=True).start()
        return _started


def _forget() -> None:
    """A forked process has no thread for the loop; it makes its own."""
    global _started, _lock
    _started, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
