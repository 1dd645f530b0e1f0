"""Markdown tables with padded columns, readable in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; numbers are right-aligned, and None is a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(header), 3, *(len(row[i]) for row in cells)) if cells else max(len(header), 3)
        for i, header in enumerate(headers)
    ]
    right = [i > 0 and all(_is_number(row[i]) for row in cells) for i in range(len(headers))]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(values, widths, right, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (width - 1) + (":" if to_right else "-")
        for width, to_right in zip(widths, right, strict=True)
    ]
    return "\n".join([line(headers), line(rule), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _is_number(text: str) -> bool:
    return text == "–" or text.lstrip("-+$").replace(",", "")[:1].isdigit()
