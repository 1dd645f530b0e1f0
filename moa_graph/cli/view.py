"""The view of a run: one line per proposer and decision, the answer, and what it used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from rich.cells import cell_len
from rich.text import Text

from moa_graph.building.compiled import MoAGraph
from moa_graph.calling.streams import is_answer
from moa_graph.cli.footer import Prices, parts_of, used_by
from moa_graph.cli.lines import counted, one_line
from moa_graph.cli.progress import Row, decision_lines, words_of
from moa_graph.cli.screen import Screen
from moa_graph.cli.terminal import print_proposals
from moa_graph.events import MoAEvent
from moa_graph.state import Decision, MoAState, decisions_of

_INTERVAL = 0.1  # seconds
_LAYERS = 2  # one of proposers, and the aggregator


class RunView:
    """Shows one run: proposers and decisions in one line each, the answer, and a footer.

    The answer goes to standard output and everything else to standard error, so that a pipe
    receives only the answer.

    Args:
        prices: Prices of the models, for the footer.
        quiet: Whether to print nothing and only return the state.
        show_proposals: Whether to print every proposal in full before the answer.
        kept: Number of usable proposals that the run has when it begins.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        *,
        quiet: bool = False,
        show_proposals: bool = False,
        kept: int = 0,
    ) -> None:
        self._prices = prices or Prices()
        self._quiet = quiet
        self._show_proposals = show_proposals and not quiet
        self._rows: dict[tuple[int, str], Row] = {}
        self._layers, self._names = True, 0
        self._decided: list[Decision] = []
        self._state: MoAState | None = None
        self._whole = ""
        self._writer: Row | None = None
        self._first_token: float | None = None
        self._started = time.monotonic()
        self._screen = Screen(self._running, quiet=quiet)
        if kept:
            is_or_are = "is" if kept == 1 else "are"
            self._screen.note(Text(f"{counted(kept, 'proposal')} {is_or_are} there already"))

    async def show(
        self, graph: MoAGraph, given: Any, config: RunnableConfig | None = None
    ) -> MoAState:
        """Run the graph and show the run.

        Args:
            graph: The graph.
            given: The input; None to go on from the checkpoint in the configuration.
            config: Configuration of the run.

        Returns:
            The final state.

        Raises:
            MoAError: If the run fails.
        """
        self._layers = graph.plan.layers > _LAYERS
        members = [member.name for layer in graph.plan.members for member in layer]
        self._names = max(map(cell_len, map(one_line, members)))
        # mypy: LangGraph types the events of several modes as Any.
        events: Any = graph.astream(given, config, stream_mode=["messages", "custom", "values"])
        ticking = asyncio.create_task(self._tick())
        close = self._close
        try:
            # Closed here, because the event loop cannot close it while it runs.
            async with aclosing(events):
                await self._show_events(events)
            assert self._state is not None  # a run that does not raise has a state
            self._end(self._state)
        except OSError:  # of a standard stream: what a model raises is a MoAError
            close = self._screen.release
            raise
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            close()
        return self._state

    async def _show_events(self, events: AsyncIterator[Any]) -> None:
        async for mode, event in events:
            if mode == "values":
                self._take(event)
            elif mode == "custom":
                self._note(event)
            elif is_answer(event[1]):
                self._write(event[0])

    async def _tick(self) -> None:
        while True:
            self._screen.tick()
            await asyncio.sleep(_INTERVAL)

    def _take(self, state: MoAState) -> None:
        """Show the decisions that are new in the state."""
        decisions = decisions_of(state)
        if self._state is not None:
            known = decisions_of(self._state)
            for decision in decisions:
                if decision not in known:
                    self._decided.append(decision)
                    for line in decision_lines(decision, self._screen.width):
                        self._screen.note(Text(line, style="dim"))
        self._state = state
        if self._whole:
            self._screen.write(self._whole)
            self._whole = ""

    def _note(self, event: MoAEvent) -> None:
        if event["type"] == "proposer_started":
            key = (event["layer"], event["proposer"])
            self._rows[key] = Row(*key, event["model"])
        elif event["type"] == "proposer_progress":
            if row := self._rows.get((event["layer"], event["proposer"])):
                row.tokens = event["tokens"]
        elif event["type"] == "proposer_ended":
            key = (event["layer"], event["proposer"])
            row = self._rows.setdefault(key, Row(*key, ""))
            row.state = words_of(event["status"])
            row.seconds, row.error = event["latency"], event["error"]
            row.tokens = row.tokens if event["tokens"] is None else event["tokens"]
            self._show(row)
        elif event["type"] == "aggregator_started":
            self._begin_answer(Row(event["layer"], event["model"], event["model"]))

    def _begin_answer(self, writer: Row) -> None:
        self._writer = writer
        if self._show_proposals and self._state:
            self._show_proposals = False
            self._screen.close()
            print_proposals(self._state["proposals"], title_of_answer="Answer")
            self._screen = Screen(self._running, quiet=self._quiet)

    def _show(self, row: Row) -> None:
        width = self._screen.width
        self._screen.note(row.plain() if width is None else self._line(row, width))

    def _line(self, row: Row, width: int) -> Text:
        names = max(self._names, cell_len(row.name))
        return row.line(width, names, layers=self._layers)

    def _running(self, width: int) -> list[Text]:
        rows = [row for row in self._rows.values() if row.seconds is None]
        if self._writer:  # it thinks, or reads
            rows.append(self._writer)
        return [self._line(row, width) for row in rows]

    def _write(self, message: Any) -> None:
        if not isinstance(message, AIMessageChunk):
            # A message that was not streamed: the decision about it comes first.
            if message.text and not self._screen.written:
                self._whole = message.text
            return
        if message.text and self._first_token is None:
            self._first_token = time.monotonic() - self._started
            self._writer = None
        self._screen.write(message.text)

    def _end(self, state: MoAState) -> None:
        self._writer = None
        message = state["messages"][-1]
        written = self._screen.written
        if message.text.startswith(written):
            self._screen.write(message.text[len(written) :])
        else:
            self._screen.end_answer()
            self._screen.write(message.text)
        self._screen.end_answer()
        seconds = time.monotonic() - self._started
        made = [p for p in state["proposals"] if (p["layer"], p["proposer"]) in self._rows]
        used = used_by(made, self._decided, message)
        self._screen.parts(
            parts_of(used, self._prices, seconds=seconds, first_token=self._first_token)
        )

    def _close(self) -> None:
        """End the view, also of a run that was stopped or failed."""
        self._writer = None
        self._screen.close()
        for row in self._rows.values():
            if row.seconds is None:
                row.seconds = time.monotonic() - row.started
                row.state = "stopped"
                self._show(row)
