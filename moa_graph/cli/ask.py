"""The command `moa ask`: one question."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from typing import Annotated, Any

import typer
from langchain_core.messages.ai import UsageMetadata
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph.cli.chats import Chat, StoreOption, opened
from moa_graph.cli.choosing import (
    AggregatorOption,
    ConfigOption,
    ModelsOption,
    PresetOption,
    check_ready,
    chosen,
    question_of,
    wrong,
)
from moa_graph.cli.consoles import new_console
from moa_graph.cli.footer import Prices
from moa_graph.cli.running import Failed, LayersOption, asked, build, fetch_weights, running
from moa_graph.cli.terminal import FAILED, STOPPED, print_json, print_proposals, say
from moa_graph.cli.view import RunView
from moa_graph.presets.configuration import Configuration
from moa_graph.state import MoAState, total_usage


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTION", help="The question, in quotes; `-` reads it from standard input."
        ),
    ],
    preset: PresetOption = None,
    config: ConfigOption = None,
    models: ModelsOption = None,
    aggregator: AggregatorOption = None,
    layers: LayersOption = None,
    show_proposals: Annotated[
        bool, typer.Option("--show-proposals", help="Print every proposal before the answer.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with all proposals.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Ask one question and show the models' progress and the answer.

    A terminal shows the answer as Markdown; a file or a pipe gets its text and nothing else. After
    Ctrl-C or a failure in a terminal, the proposals are kept, and `moa chat --resume ID` goes on.
    """
    question = question_of(words)
    if question == "-":
        question = sys.stdin.read()
    question = question.strip()
    if not question:
        wrong("The question is blank.")
    configuration = chosen(preset, config, models, aggregator)
    check_ready(configuration)
    run = _Run(configuration, question, layers)
    started = time.monotonic()
    try:
        with running():
            fetch_weights(configuration)
            state = run.show(quiet=as_json, show_proposals=show_proposals)
    except Failed as failure:
        if as_json:
            record = {"question": question, "preset": configuration.name, "error": str(failure)}
            print_json({**record, "proposals": failure.proposals})
        elif show_proposals:
            print_proposals(failure.proposals)
        say(str(failure))
        run.keep(store)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        say("Stopped.")
        run.keep(store)
        raise typer.Exit(STOPPED) from None
    if as_json:
        print_json(
            {
                "question": question,
                "preset": configuration.name,
                "answer": state["messages"][-1].text,
                "proposals": state["proposals"],
                "usage": _total_usage(state),
                "seconds": round(time.monotonic() - started, 3),
            }
        )


class _Run:
    """The run of one question; kept only if it does not end."""

    def __init__(self, configuration: Configuration, question: str, layers: int | None) -> None:
        # Where nobody reads the advice to go on, nothing is kept.
        self._memory = InMemorySaver() if new_console(stderr=True).is_terminal else None
        self._graph = build(configuration, layers=layers, checkpointer=self._memory)
        self._prices = Prices.of(configuration)
        self._question = question
        self._chat = Chat.new().using(configuration, layers).asked(question, 1)

    def show(self, **options: Any) -> MoAState:
        """Run it and return the final state."""
        thread = {"thread_id": self._chat.id}
        view = RunView(self._prices, **options)
        shown = view.show(self._graph, asked(self._question), {"configurable": thread})
        return asyncio.run(shown)

    def keep(self, store: str | None) -> None:
        """Keep what it has, and say how to go on."""
        if self._memory is None:
            return
        try:
            is_kept = asyncio.run(opened(store).take(self._chat, self._memory))
        except sqlite3.Error as error:
            say(f"The proposals are not kept: {error}.")
            return
        if is_kept:
            say(f"moa chat --resume {self._chat.id} goes on.")


def _total_usage(state: MoAState) -> UsageMetadata | None:
    usages = [p["usage"] for p in state["proposals"]]
    usages.append(getattr(state["messages"][-1], "usage_metadata", None))
    return total_usage(usages)
