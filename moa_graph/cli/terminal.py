"""What every command prints: messages, JSON, titles, proposals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.text import Text

from moa_graph.cli.consoles import new_console
from moa_graph.cli.lines import cut, inert, one_line
from moa_graph.cli.progress import words_of
from moa_graph.cli.screen import show_markdown
from moa_graph.state import Proposal

FAILED, WRONG_CALL, STOPPED = 1, 2, 130
"""Exit codes: the run failed, the command was used incorrectly, and Ctrl-C."""


def print_proposals(proposals: Iterable[Proposal], *, title_of_answer: str = "") -> None:
    """Print every proposal in full; print the error of a failed one.

    Args:
        proposals: The proposals.
        title_of_answer: Title of what comes after them, if anything.
    """
    for number, p in enumerate(proposals):
        if number:
            _gap()
        title = f"Layer {p['layer']} · {p['proposer']} · {words_of(p['status'])}"
        print_title(f"{title} · {p['latency']:.1f} s")
        print_text(p["content"] or p["error"] or "")
    if title_of_answer:
        _gap()
        print_title(title_of_answer)


def _gap() -> None:
    """Print a blank line to standard output, if it is a terminal."""
    if sys.stdout.isatty():
        print()  # noqa: T201


def print_text(text: str) -> None:
    """Print a model's text to standard output: as Markdown on a terminal, else unchanged."""
    console = new_console()
    if console.is_terminal:
        show_markdown(console, text)
    else:
        print(text)  # noqa: T201


def print_json(record: Any) -> None:
    """Print data as JSON to standard output."""
    typer.echo(json.dumps(record, ensure_ascii=False, indent=2))


def say(text: str) -> None:
    """Print a message to standard error; on a terminal, no word of it is wrapped."""
    console = new_console(stderr=True, markup=False, emoji=False)
    if console.is_terminal:
        console.print(Text(inert(text)))
    else:
        typer.echo(text, err=True)


def print_title(title: str) -> None:
    """Print a title with a line to standard output."""
    console = new_console()
    text = one_line(title)
    if console.is_terminal:
        text = cut(text, max(1, console.width - 4))
    console.rule(Text(text), align="left", characters="─" if console.is_terminal else "-")
    sys.stdout.flush()
