"""Text of models that is safe to print, and lines that fit a width."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, chop_cells

from moa_graph.models.text import utf8

_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), 0x202D, 0x202E], 0xFFFD)
_PICTURES = {code: shown for code, shown in _PICTURES.items() if chr(code) not in "\n\t"}
"""For each control character, and for those that mirror text, a character that shows it."""

SEPARATOR = " · "


def inert(text: str) -> str:
    """Return text in which control characters are visible and have no effect on a terminal.

    Line feeds and tabs stay; CR LF becomes a line feed.
    """
    return utf8(text).replace("\r\n", "\n").translate(_PICTURES)


def one_line(text: str) -> str:
    """Return text as one line without effects on a terminal; white space becomes one space."""
    return inert(" ".join(text.split()))


def cut(text: str, width: int) -> str:
    """Return one line of text, cut with an ellipsis if it is wider than so many cells.

    It is cut between words, unless that would leave less than half of the width.

    Args:
        text: One line.
        width: Cells of the terminal; a CJK character or an emoji takes two.
    """
    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    head = chop_cells(text, width - 1)[0] if width > 1 else ""
    if cell_len(head) > width - 1:  # a first character that is wider than the width
        head = ""
    space = head.rfind(" ")
    if text[len(head) : len(head) + 1].strip() and cell_len(head[: max(space, 0)]) >= width // 2:
        head = head[:space]
    return f"{head.rstrip()}…"


def padded(text: str, width: int) -> str:
    """Return one line of text with exactly so many cells: cut, or filled with spaces."""
    text = cut(text, width)
    return text + " " * (width - cell_len(text))


def joined(parts: Iterable[str], width: int) -> list[str]:
    """Join parts with a dot between them into lines; a line ends between two parts.

    Args:
        parts: Texts of one line each; a part that is wider than a line ends between words.
        width: Cells of a line.
    """
    lines: list[str] = []
    for part in filter(None, parts):
        longer = f"{lines[-1]}{SEPARATOR}{part}" if lines else ""
        if lines and cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines += _wrapped(part, width)
    return lines


def _wrapped(part: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in part.split(" "):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(cut(word, width))
    return lines


def counted(number: int, one: str) -> str:
    """Return a number with its noun, such as `"1 model"` or `"1,234 tokens"`."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def dollars(amount: float) -> str:
    """Return an amount in dollars, with two digits that are not zero."""
    if amount == 0:
        return "$0"
    digits = next((d for d in range(2, 8) if round(amount, d) >= 10 ** (1 - d)), 8)
    return f"${amount:,.{digits}f}"
