"""Read the lines of a chat: with editing and a history on a terminal, plainly otherwise."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from moa_graph.cli.running import EndOfInput

PROMPT = "> "


class Prompt:
    """Reads lines; a pasted text or Alt-Enter gives a line with line feeds.

    Args:
        history: File of earlier lines, which only its user can read; None to keep none.
        words: Words that Tab completes at the beginning of a line.
    """

    def __init__(self, history: Path | None, words: Sequence[str]) -> None:
        self._session: PromptSession[str] | None = None
        if sys.stdin.isatty() and sys.stdout.isatty():
            self._session = PromptSession(
                history=_history(history),
                completer=WordCompleter(list(words), sentence=True),
                complete_style=CompleteStyle.READLINE_LIKE,
                complete_while_typing=False,
                key_bindings=_keys(),
                prompt_continuation="  ",
            )

    def read(self, runner: asyncio.Runner) -> str | None:
        """Return the next line without white space around it; None after Ctrl-C.

        If there is white space before a slash, one space of it stays: it is no command.

        Args:
            runner: Runs the editor.

        Raises:
            EndOfInput: At the end of the input, or after Ctrl-D.
        """
        try:
            line = runner.run(self._edited()) if self._session else _line()
            text = line.strip()
            return f" {text}" if text.startswith("/") and line[0].isspace() else text
        except KeyboardInterrupt:
            if self._session is None and sys.stdin.isatty():
                sys.stderr.write("\n")  # after the terminal's own `^C`
            return None
        except EOFError:
            raise EndOfInput from None

    async def _edited(self) -> str:
        assert self._session is not None
        sys.stdout.write("\n")
        sys.stdout.flush()
        return await self._session.prompt_async(PROMPT)


def _line() -> str:
    if sys.stdin.isatty():
        sys.stderr.write(f"\n{PROMPT}")
        sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
