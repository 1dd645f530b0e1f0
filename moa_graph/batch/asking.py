"""Ask a graph many prompts at a time, in this process, and save each answer when it arrives."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeAlias

from moa_graph.batch.answers import Part
from moa_graph.building.compiled import MoAGraph
from moa_graph.calling import sync
from moa_graph.context import MoAContext
from moa_graph.errors import explain
from moa_graph.presets.configuration import Configuration
from moa_graph.state import total_usage

Built: TypeAlias = Configuration | Callable[[], MoAGraph]


class Asking:
    """A graph that is asked rows, and the file of its answers."""

    def __init__(self, mixture: Built, part: Part, column: str, context: MoAContext | None) -> None:
        self._graph = mixture.create() if isinstance(mixture, Configuration) else mixture()
        self._part = part
        self._column = column
        self._context = context

    async def answer(self, key: str, text: str) -> None:
        """Ask the prompt of one row, given as JSON, and save its answer or its error."""
        row = json.loads(text)
        answer = await self._ask(row[self._column])
        self._part.add(key, {**row, **answer})

    async def _ask(self, prompt: Any) -> dict[str, Any]:
        try:
            state = await self._graph.ainvoke({"messages": prompt}, context=self._context)
        except Exception as error:  # noqa: BLE001 - one failed prompt must not stop the others
            proposals = getattr(error, "proposals", [])
            return _answer_of(None, explain(error), proposals)
        message = state["messages"][-1]
        return _answer_of(message.text, None, state["proposals"], message.usage_metadata)


def answer_here(
    mixture: Built,
    folder: Path,
    column: str,
    rows: Iterator[tuple[str, str]],
    *,
    at_once: int,
    context: MoAContext | None,
) -> None:
    """Answer rows in this process, with or without a running event loop, and wait for the end.

    If the wait is interrupted inside a running event loop, rows in flight are still answered.

    Args:
        mixture: The mixture.
        folder: Folder of the answers.
        column: Column with the prompt.
        rows: Key and JSON of each row. The next one is read when an earlier one is answered, so
            that only `at_once` rows are held.
        at_once: Maximum number of rows in flight.
        context: Settings of every run.
    """
    stopped = threading.Event()
    part = Part(folder)

    def run() -> None:
        asking = Asking(mixture, part, column, context)
        asyncio.run(_answer_all(asking, rows, at_once, stopped))

    try:
        if not _in_event_loop():
            run()
            return
        with ThreadPoolExecutor(1) as thread:
            try:
                thread.submit(copy_context().run, run).result()
            finally:
                stopped.set()
    finally:
        part.close()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _answer_all(
    asking: Asking, rows: Iterator[tuple[str, str]], at_once: int, stopped: threading.Event
) -> None:
    async def answer_some() -> None:
        for key, text in rows:  # all workers share the iterator
            await asking.answer(key, text)
            if stopped.is_set():
                return

    await sync.run_workers(answer_some, at_once)


def _answer_of(
    text: str | None, error: str | None, proposals: list[Any], *more_usage: Any
) -> dict[str, Any]:
    usage = total_usage([*(proposal["usage"] for proposal in proposals), *more_usage])
    return {"answer": text, "error": error, "proposals": proposals, "usage": usage}
