"""Where the output of a run goes: the answer to standard output, the rest to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from moa_graph.cli.consoles import new_console
from moa_graph.cli.lines import inert, joined
from moa_graph.cli.markdown import Answer, Block, blocks_of

_LONGEST_LIVE = 20_000  # characters of a block that are laid out while it is written
_SHARE = 10  # at most so much of the time is spent to lay out the answer
_LEAST_HEIGHT = 3


class Lines:
    """Lines that are laid out already."""

    def __init__(self, lines: Sequence[list[Segment]]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield from line
            yield Segment.line()


def laid_out(console: Console, text: str) -> list[list[Segment]]:
    """Return the lines of Markdown on a console, without blank lines around and spaces behind."""
    options = console.options.update(height=None)
    lines = [_stripped(line) for line in console.render_lines(Block(text), options, pad=False)]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def show_markdown(console: Console, text: str) -> None:
    """Print Markdown that is complete: its blocks with a blank line between them."""
    for number, block in enumerate(blocks_of(text)):
        if number:
            console.print()
        console.print(Lines(laid_out(console, block)), end="", soft_wrap=True)


def _stripped(line: list[Segment]) -> list[Segment]:
    line = list(line)
    while line and not line[-1].text.strip(" "):
        line.pop()
    if line:
        last = line[-1]
        line[-1] = Segment(last.text.rstrip(" "), last.style, last.control)
    return line


class Screen:
    """Output of one run.

    If standard output is a terminal, the answer is shown as Markdown: its finished blocks are
    printed once, and the block that is being written is shown below them together with the lines
    of proposers that are writing. Otherwise the text of the answer goes to standard output
    as it arrives, unchanged. If standard error is no terminal, its lines are not cut.

    Args:
        running: Returns the lines of the proposers that are writing, for a width in cells.
        quiet: Whether to print nothing.
    """

    def __init__(
        self, running: Callable[[int], Sequence[Text]] = lambda _: (), *, quiet: bool = False
    ) -> None:
        self._quiet = quiet
        self._running = running
        self._out = new_console(quiet=quiet)
        errors = new_console(stderr=True, quiet=quiet)
        self.renders = self._out.is_terminal
        """Whether the answer is shown as Markdown."""
        self._notes = self._out if self.renders and errors.is_terminal else errors
        self._answer = Answer()
        self._shown = False
        self._gap = False
        self._next = 0.0
        self._live: Live | None = None
        if not quiet and self._notes.is_terminal and not self._notes.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._region,
                console=self._notes,
                auto_refresh=False,
                transient=True,
                vertical_overflow="visible",
            )
            self._live.start()

    @property
    def width(self) -> int | None:
        """Cells of a line for notes; None if they go to a file."""
        return self._notes.width if self._notes.is_terminal else None

    @property
    def written(self) -> str:
        """The text of the answer so far."""
        return self._answer.text

    def note(self, line: Text, *, apart: bool = False) -> None:
        """Print one line that is not part of the answer.

        Args:
            line: The line; it is cut if it is wider than the terminal.
            apart: Whether a blank line comes before it.
        """
        if apart and self._notes.is_terminal:
            self._notes.print()
        if self.width is not None:
            line.truncate(self.width, overflow="ellipsis")
        self._notes.print(line, soft_wrap=True, no_wrap=True)
        self._gap = True

    def parts(self, parts: Iterable[str]) -> None:
        """Print parts with dots between them; a line ends between two parts."""
        for number, line in enumerate(joined(parts, self.width or sys.maxsize)):
            self.note(Text(line, style="dim"), apart=not number)

    def write(self, piece: str) -> None:
        """Add the next piece of the answer."""
        self._answer.add(piece)
        if self.renders or self._quiet or not piece:
            return
        if not self._shown:
            self._shown = True
            self._end_live()
            if self._notes.is_terminal:
                self._notes.print()
        sys.stdout.write(piece)
        sys.stdout.flush()

    def tick(self) -> None:
        """Show what has changed; call it about ten times a second."""
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        if self.renders:
            self._print(self._answer.finished())
        if self._live is not None:
            self._live.refresh()
        took = time.monotonic() - now
        self._next = now + took * _SHARE  # a long block takes longer each time

    def end_answer(self) -> None:
        """Print the rest of the answer; the next piece begins another one."""
        if self.renders and not self._quiet:
            self._print(self._answer.end())
        elif self._answer.text and not self._quiet and not self._answer.text.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._answer = Answer()

    def close(self) -> None:
        """Print what is left of an answer that was stopped, and give the terminal back."""
        if self._answer.text:
            self.end_answer()
            if self._notes.is_terminal:
                self._notes.print()
        self._end_live()

    def release(self) -> None:
        """Give the terminal back and print nothing more, because a stream cannot be written."""
        with suppress(OSError):
            self._end_live()

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, blocks: Iterable[str]) -> None:
        rows: list[list[Segment]] = []
        for block in blocks:
            if self._shown or self._gap:
                rows.append([])
            self._shown, self._gap = True, False
            rows += laid_out(self._out, block)
        if rows:  # at once, because the lines that change are written again each time
            self._out.print(Lines(rows), end="", soft_wrap=True)

    def _region(self) -> Lines:
        """Return the lines that change: the end of the answer, and the proposers that write."""
        height = max(_LEAST_HEIGHT, self._notes.height - 1)
        writing = self._tail()
        running = list(self._running(self._notes.width))
        room = height // 2 if writing else height
        if len(running) > room:
            more = Text(f"… and {len(running) - room + 1} more", style="dim")
            running = [*running[: room - 1], more]
        lines = [line.render(self._notes) for line in running]
        rows = [[s for s in line if s.text != "\n"] for line in lines]
        if writing:
            gap: list[list[Segment]] = [[]]
            shown = writing[-(height - len(rows) - 2) :]
            rows = [
                *(gap if self._shown or self._gap else []),
                *shown,
                *(gap if rows else []),
                *rows,
            ]
        return Lines(rows[-height:])

    def _tail(self) -> list[list[Segment]]:
        if not self.renders or not self._answer.rest.strip():
            return []
        rest = self._answer.rest
        if len(rest) > _LONGEST_LIVE:
            text = Text(inert(rest[-self._notes.width * self._notes.height :].replace("\r", " ")))
            return self._notes.render_lines(text, pad=False)
        return laid_out(self._out, rest)
