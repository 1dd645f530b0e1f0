"""The consoles of the command: where its lines go, and how wide they are."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any, NoReturn

from rich.console import Console, ConsoleDimensions


class _Console(Console):
    """Console that knows the width of every terminal, and raises if nobody reads it any more."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; Rich takes 80 and 25 for a terminal that has no cursor movements."""
        given = self._width, self._height
        if not self.is_dumb_terminal or None not in given:
            return super().size
        try:
            known = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            known = os.terminal_size((80, 24))
        columns, lines = shutil.get_terminal_size(known)
        return ConsoleDimensions(given[0] or columns, given[1] or lines)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> NoReturn:
        """Raise `BrokenPipeError`; Rich would exit, in the middle of an event loop."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def new_console(*, stderr: bool = False, **options: Any) -> Console:
    """Return a console of a standard stream, without colours for numbers and paths.

    Args:
        stderr: Whether it is that of standard error.
        **options: Other arguments of `rich.console.Console`.
    """
    return _Console(stderr=stderr, highlight=False, **options)
