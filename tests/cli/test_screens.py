"""Whole screens of `moa ask` and `moa chat` in terminals of tmux, compared with `screens/*.txt`.

To write these files anew after a change that is meant, and then to read their diff:

    REWRITE_SCREENS=1 pytest -m services tests/cli/test_screens.py
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.tmux import Terminal

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux: apt-get install tmux"),
]

ROOT = Path(__file__).parents[2]
SCREENS = Path(__file__).parent / "screens"
MARKDOWN = (Path(__file__).parent / "answer.md").read_text()
REWRITE = bool(os.environ.get("REWRITE_SCREENS"))

ASK = """
proposers = ["openai:a", "openai:a-model-with-a-long-name?latency=0.3", "openai:b?status=400"]
aggregator = "openai:gpt-4o?tps=400"
calls = { retries = 0 }
"""
CHAT = """
proposers = ["openai:a", "openai:b?latency=0.1"]
aggregator = "openai:agg"
"""
STOP = """
proposers = ["openai:a", "openai:b?hang&times=1"]
aggregator = "openai:agg?stall=11&times=1"
"""


NINE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(params=[60, 80, 200])
def columns(request) -> int:
    return request.param


@pytest.fixture
def opened(server, tmp_path, columns) -> Callable[..., Terminal]:
    """`opened(**variables)`: a terminal with the command `moa` and models of the fake server."""
    command = tmp_path / "bin" / "moa"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m moa_graph "$@"\n')
    command.chmod(0o755)
    for name, text in (("ask", ASK), ("chat", CHAT), ("stop", STOP)):
        (tmp_path / f"{name}.toml").write_text(text)
    return lambda **variables: Terminal(
        columns,
        tmp_path,
        PATH=f"{command.parent}:{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        OPENAI_API_KEY="sk-test-0123456789",
        OPENAI_BASE_URL=server.url,
        **variables,
    )


def settled(screen: str) -> str:
    """The screen without what differs from run to run: seconds, ids, times."""
    screen = re.sub(r" *\d+\.\d s", lambda found: "0.0 s".rjust(len(found[0])), screen)
    screen = re.sub(r"\b[0-9a-f]{8}\b", "01234567", screen)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-01-01 00:00", screen)


def check(screen: str, name: str, columns: int, *texts: str) -> None:
    """Compare a screen with its file; no word of it is wrapped, and no Markdown is left."""
    screen = settled(screen)
    lines = screen.splitlines()
    assert max(map(cell_len, lines)) <= columns
    known = " ".join((SCREENS / f"{name}-200.txt").read_text().split()) if not REWRITE else ""
    words = set(re.findall(r"[A-Za-z]+", f"{known} {' '.join(texts)}"))
    if known and columns < 200:
        shown = [line.replace("…", " ") for line in lines if "…" not in line]
        assert set(re.findall(r"[A-Za-z]+", "\n".join(shown))) <= words
    assert not re.search(
        r"\*\*(?!not)|^#|```|\|--|~~|\]\(", screen.replace('bold**"', ""), re.MULTILINE
    )
    path = SCREENS / f"{name}-{columns}.txt"
    if REWRITE:
        path.write_text(screen)
    assert screen == path.read_text()


def test_ask(server, opened, columns):
    server.answers["gpt-4o"] = MARKDOWN
    with opened() as terminal:
        terminal.type("moa ask 'What is a cat?' -c ask.toml; echo code $?")
        check(terminal.wait("\ncode 0\n$"), "ask", columns, MARKDOWN)
        assert terminal.cursor_is_visible()


def test_ten_turns(server, opened, columns):
    server.answers["agg"] = lambda call: f"Answer to **{call.messages[-1]['content']}**.\n\n- end"
    with opened() as terminal:
        terminal.type("moa chat -c chat.toml; echo code $?")
        terminal.wait_for_prompt()
        for number, line in enumerate(NINE, 1):
            terminal.type(line)
            terminal.wait("first token", number)
            terminal.wait_for_prompt()
        terminal.paste("ten\nlines")
        terminal.press("Enter")
        terminal.wait("first token", 10)
        terminal.wait_for_prompt()
        terminal.type("/proposals 2")
        terminal.wait("b: two")
        terminal.wait_for_prompt()
        terminal.press("Up", "Up", "C-c")  # a line of the history, which is not sent
        terminal.wait("/exit leaves")
        terminal.wait_for_prompt()
        terminal.type("/ret\t")
        terminal.wait("first token", 11)
        terminal.wait_for_prompt()
        terminal.type("/rety")
        terminal.wait("did you mean")
        terminal.wait_for_prompt()
        terminal.type("/cost")
        terminal.wait("in all")
        terminal.wait_for_prompt()
        terminal.press("C-d")
        check(terminal.wait("\ncode 0\n$"), "chat", columns)
        assert terminal.cursor_is_visible()
    assert Counter(server.labels()) == {"a": 10, "b": 10, "agg": 11}


def test_ctrl_c_at_three_moments_and_another_process_that_goes_on(server, opened, columns):
    server.answers["agg"] = (
        "A **paragraph** that is finished.\n\n- one\n- two **bold** words\n\nEnd."
    )
    with opened() as terminal:
        terminal.type("moa chat -c stop.toml; echo code $?")
        terminal.wait_for_prompt()
        terminal.type("What is a cat?")
        terminal.wait("5 tokens")
        terminal.wait("writing")
        terminal.press("C-c")
        terminal.wait("Stopped.")
        terminal.wait_for_prompt()
        terminal.type("/resume")
        terminal.wait("two bold")
        terminal.press("C-c")
        terminal.wait("Stopped.", 2)
        terminal.wait_for_prompt()
        terminal.press("C-c")
        terminal.wait("/exit leaves")
        terminal.wait_for_prompt()
        assert terminal.cursor_is_visible()
        terminal.press("C-d")
        terminal.wait("\ncode 0")
        terminal.type("moa chats; moa chat --resume last; echo code $?")
        terminal.wait("no answer yet")
        terminal.wait_for_prompt()
        terminal.type("/resume")
        terminal.wait("first token")
        terminal.wait_for_prompt()
        terminal.press("C-d")
        check(terminal.wait("\ncode 0\n$", 2), "stop", columns)
    assert sorted(server.labels()) == ["a", "agg", "agg", "b", "b"]


@pytest.mark.parametrize("columns", [80], indirect=True)
def test_a_question_that_is_stopped_is_kept(server, opened, columns):
    with opened() as terminal:
        terminal.type("moa ask Why? -c stop.toml; echo code $?")
        terminal.wait("writing")
        terminal.wait("2 tokens")
        terminal.press("C-c")
        screen = terminal.wait("\ncode 130")
        assert terminal.cursor_is_visible()
        (name,) = re.findall(r"moa chat --resume (\w+) goes on", screen)
        terminal.type(f"echo /resume | moa chat --resume {name}")
        terminal.wait("moa chat --resume", 3)
    assert sorted(server.labels()) == ["a", "agg", "b", "b"]


@pytest.mark.parametrize("columns", [80], indirect=True)
def test_a_pipe_that_ends_gives_the_terminal_back(server, opened, columns):
    server.answers["gpt-4o"] = "one\n" + "word " * 400
    with opened() as terminal:
        terminal.type("moa ask Why? -c ask.toml --show-proposals | head -1; echo done")
        screen = terminal.wait("\ndone\n$")
        assert terminal.cursor_is_visible()
    assert "Layer 1 · a · ok" in screen
    assert "Traceback" not in screen
    assert "Error" not in screen
