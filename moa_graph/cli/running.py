"""What the commands that ask models share: build a mixture, fetch weights, explain failures."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from moa_graph.building.compiled import MoAGraph
from moa_graph.cli import streams
from moa_graph.cli.choosing import wrong
from moa_graph.errors import MoAError, explain
from moa_graph.models import local
from moa_graph.models.text import sentence
from moa_graph.presets.configuration import Configuration
from moa_graph.state import Proposal
from moa_graph.strategies import similarity

LayersOption = Annotated[
    int | None, typer.Option(help="Layers to build, the aggregator's included.")
]


class Failed(Exception):
    """Failure of a run, with a message for the user."""

    def __init__(self, message: str, proposals: list[Proposal]) -> None:
        super().__init__(message)
        self.proposals = proposals


class EndOfInput(Exception):
    """The user leaves a chat, or its input has ended."""


@contextmanager
def running() -> Iterator[None]:
    """Turn the errors of a run into `Failed`, but not those of streams and of the file of chats."""
    try:
        yield
    except sqlite3.Error:
        raise
    except OSError as error:
        if streams.is_lost(error):
            raise
        raise Failed(sentence(explain(error)), []) from None
    except MoAError as error:
        raise Failed(str(error), getattr(error, "proposals", [])) from None
    except Exception as error:  # noqa: BLE001 - a traceback does not help at a prompt
        raise Failed(sentence(explain(error)), []) from None


def build(configuration: Configuration, **options: Any) -> MoAGraph:
    """Build the graph of a mixture.

    Args:
        configuration: The mixture.
        **options: Arguments of `create_moa`; None means the configuration's value.

    Raises:
        typer.Exit: With code 2 after a message, if the mixture cannot be built.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        with similarity.noting() as comparing:
            # The proposers' tokens are not printed, but they are counted while they arrive.
            graph = configuration.create(stream_proposals=True, **given)
    except (ValueError, TypeError) as error:
        wrong(str(error))
    if comparing:  # prepare it while the models work
        threading.Thread(target=similarity.prepare, daemon=True).start()
    return graph


def fetch_weights(configuration: Configuration) -> None:
    """Download local models before the run, because a download shows its own progress.

    Then start to load them, in parallel with each other and with what else the run needs.
    """
    models = [model for model in configuration.models() if model.startswith("local:")]
    names = [model.removeprefix("local:") for model in models if local.is_installed()]
    for name in names:
        local.fetch(name)
    for name in names:
        local.load(name)


def asked(question: str) -> dict[str, Any]:
    """Return the input of a run with a question."""
    return {"messages": [{"role": "user", "content": question}]}
