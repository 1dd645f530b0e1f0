"""A terminal for tests: a shell in tmux, whose screen can be read."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

LINES = 40


class Terminal:
    """A shell in a terminal of tmux: `with Terminal(60, folder) as terminal`.

    Args:
        columns: Its width in cells.
        folder: Where the shell is, and where the socket of tmux is.
        **variables: Environment variables; all others but PATH are those of a new login.
    """

    def __init__(self, columns: int, folder: Path, lines: int = LINES, **variables: str) -> None:
        self._columns, self._lines, self._folder = columns, lines, folder
        fixed = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PS1": "$ ",
            "HISTFILE": "/dev/null",
        }
        self._environment = fixed | variables

    def __enter__(self) -> Self:
        (self._folder / "tmux.conf").write_text(
            "set -g history-limit 20000\nset -g escape-time 0\nset -g status off\n"
        )
        size = ["-x", str(self._columns), "-y", str(self._lines)]
        given = [f"{name}={value}" for name, value in self._environment.items()]
        shell = shlex.join(["env", "-i", *given, "sh"])
        self._tmux("new-session", "-d", *size, "-c", str(self._folder), shell)
        self.wait("$")
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server", check=False)

    def _tmux(self, *arguments: str, check: bool = True) -> str:
        command = ["tmux", "-S", str(self._folder / "tmux"), "-f", str(self._folder / "tmux.conf")]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=check, timeout=30
        )
        return done.stdout

    def type(self, text: str) -> None:
        """Type a text, and Enter."""
        self._tmux("send-keys", "-l", text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux: `C-c`, `Up`, `Tab` …"""
        self._tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste a text as a terminal does."""
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p", "-r")

    def screen(self) -> str:
        """All lines of the terminal, with those that have left its top."""
        lines = self._tmux("capture-pane", "-p", "-S", "-").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"

    def styled(self) -> str:
        """The same with the escape sequences of the styles."""
        return self._tmux("capture-pane", "-p", "-e", "-S", "-")

    def clear(self) -> None:
        """Forget what was on the screen."""
        self._tmux("send-keys", "-R")
        self._tmux("clear-history")

    def cursor_is_visible(self) -> bool:
        return self._tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def wait(self, text: str, times: int = 1) -> str:
        """Wait until the terminal has a text so many times; return its screen."""
        return self._until(lambda screen: screen.count(text) >= times, f"{text!r} {times} times")

    def wait_for_prompt(self) -> str:
        """Wait until a chat reads the next line; return the screen."""
        return self._until(lambda screen: screen.endswith("\n>\n"), "a prompt")

    def _until(self, holds: Callable[[str], bool], what: str, seconds: float = 30) -> str:
        for _ in range(int(seconds / 0.05)):
            if holds(screen := self.screen()):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"The terminal does not have {what}:\n{self.screen()}")
