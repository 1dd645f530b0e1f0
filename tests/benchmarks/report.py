"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A title, column heads, and rows of numbers."""

    title: str
    heads: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float | None], digits: int = 2) -> None:
        """Add a row; None is shown as a dash."""
        cells = ["-" if value is None else f"{value:,.{digits}f}" for value in values]
        self.rows.append([name, *cells])

    def __str__(self) -> str:
        lines = [["", *self.heads], *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *text])
