"""Output of a run to a terminal or to a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import typer
from langchain_core.messages import AIMessageChunk
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moa_graph.building.compiled import MoAGraph
from moa_graph.calling.streams import is_answer
from moa_graph.events import MoAEvent
from moa_graph.state import MoAState, Proposal

FAILED, WRONG_CALL, STOPPED = 1, 2, 130
"""Exit codes: the run failed, the command was used incorrectly, and Ctrl-C."""

_STYLES = {"ok": "green", "failed": "red", "timed_out": "red", "abandoned": "yellow"}


@dataclass
class _Row:
    """Progress of one proposer."""

    model: str
    state: str = "writing"
    tokens: int | None = None
    seconds: float | None = None
    error: str | None = None
    started: float = field(default_factory=time.monotonic)

    def cells(self) -> tuple[str, str]:
        seconds = time.monotonic() - self.started if self.seconds is None else self.seconds
        return f"{seconds:.1f} s", "" if self.tokens is None else f"{self.tokens} tokens"


class RunView:
    """Live view of a run: one line per proposer, then the answer as it is streamed.

    The answer goes to standard output and everything else to standard error, so that a pipe
    receives only the answer. If standard error is not a terminal, one plain line is printed when
    a proposer ends.

    Args:
        quiet: Whether to print nothing and only return the state.
        show_proposals: Whether to print every proposal in full before the answer.
    """

    def __init__(self, *, quiet: bool = False, show_proposals: bool = False) -> None:
        self._quiet = quiet
        self._show_proposals = show_proposals and not quiet
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._rows: dict[tuple[int, str], _Row] = {}
        self._wrote = False

    async def show(self, graph: MoAGraph, question: str, config: Any = None) -> MoAState:
        """Run the graph on a question and show it.

        Returns:
            The final state.

        Raises:
            MoAError: If the run fails.
        """
        state: MoAState | None = None
        # mypy: LangGraph types the events of several modes as Any.
        events: AsyncIterator[Any] = graph.astream(
            {"messages": [{"role": "user", "content": question}]},
            config,
            stream_mode=["messages", "custom", "values"],
        )
        live = Live(
            get_renderable=self._table,
            console=self._console,
            refresh_per_second=8,
            transient=False,
        )
        animated = self._console.is_terminal and not self._quiet
        if animated:
            live.start()
        try:
            async for mode, event in events:
                if mode == "values":
                    state = event
                elif mode == "custom":
                    self._note(event, animated=animated)
                    if event["type"] == "aggregator_started" and self._show_proposals and state:
                        live.stop()
                        print_proposals(state["proposals"])
                        print_title("Answer")
                elif is_answer(event[1]):
                    live.stop()  # keep the table and write the answer below it
                    self._write(event[0])
        finally:
            live.stop()
            if self._wrote and not self._quiet:
                print()  # noqa: T201
        assert state is not None  # a run that does not raise has a state
        return state

    def _note(self, event: MoAEvent, *, animated: bool) -> None:
        if event["type"] == "proposer_started":
            self._rows[event["layer"], event["proposer"]] = _Row(event["model"])
        elif event["type"] == "proposer_progress":
            self._rows[event["layer"], event["proposer"]].tokens = event["tokens"]
        elif event["type"] == "proposer_ended":
            row = self._rows[event["layer"], event["proposer"]]
            row.state, row.seconds, row.error = event["status"], event["latency"], event["error"]
            row.tokens = row.tokens if event["tokens"] is None else event["tokens"]
            if not animated:
                self._print_row(event["layer"], event["proposer"], row)

    def _print_row(self, layer: int, proposer: str, row: _Row) -> None:
        seconds, tokens = row.cells()
        parts = [f"layer {layer}", proposer, row.state, seconds, tokens, row.error or ""]
        self._console.print("  ".join(part for part in parts if part), markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for (layer, proposer), row in self._rows.items():
            seconds, tokens = row.cells()
            table.add_row(
                Text(f"layer {layer}", style="dim"),
                Text(proposer),
                Text(row.state, style=_STYLES.get(row.state, "cyan")),
                Text(seconds, justify="right"),
                Text(tokens, justify="right"),
                Text(row.error or "", style="red"),
            )
        return table

    def _write(self, message: Any) -> None:
        if self._quiet:
            return
        if not isinstance(message, AIMessageChunk) and self._wrote:
            return
        if message.text:
            if not self._wrote:
                self._console.print()
            self._wrote = True
            sys.stdout.write(message.text)
            sys.stdout.flush()


def print_proposals(proposals: list[Proposal]) -> None:
    """Print every proposal in full; print the error of a failed one."""
    for p in proposals:
        print_title(f"Layer {p['layer']} · {p['proposer']} · {p['status']} · {p['latency']:.1f} s")
        print(p["content"] or p["error"] or "")  # noqa: T201


def print_json(record: Any) -> None:
    """Print data as JSON to standard output."""
    typer.echo(json.dumps(record, ensure_ascii=False, indent=2))


def say(text: str) -> None:
    """Print a message to standard error."""
    typer.echo(text, err=True)


def print_title(title: str) -> None:
    """Print a title with a line to standard output."""
    console = Console(highlight=False)
    console.rule(Text(title), align="left", characters="─" if console.is_terminal else "-")
    sys.stdout.flush()
