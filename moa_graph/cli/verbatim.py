r"""Rules of the Markdown parser for text that Markdown would change: formulas and addresses."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

OPEN = "open"
"""Key of a token's `meta`: whether the end of the formula is not there yet."""

_INTERRUPTED = ["paragraph", "blockquote", "list"]
_DISPLAY = re.compile(r"(\$\$)|(\\\[)|\\begin\{(\w+\*?)\}")
_FORMULA = re.compile(
    r"""
    \\\( .{1,2000}? \\\)
    | \\\[ .{1,2000}? \\\]
    | \$\$ .{1,2000}? \$\$
    | \\begin\{ (\w+\*?) \} .{,2000}? \\end\{ \1 \}
    | \$ (?![\s$]) [^$\n`]*? (?<![\s\\]) \$ (?!\d)
    """,
    re.VERBOSE | re.DOTALL,
)
_ADDRESS = re.compile(r"://[^\s<>\[\]`|]*[^\s<>\[\]`|.,:;!?'\"()*_~]/?")


def verbatim(md: MarkdownIt) -> None:
    r"""Plugin of `MarkdownIt`: formulas and bare addresses are text as it is written.

    A formula is in `$…$`, `$$…$$`, `\(…\)`, `\[…\]` or `\begin{…}`; an address begins with
    `http://` or `https://`.

    Args:
        md: The parser.
    """
    md.inline.ruler.before("escape", "formula", _formula)
    md.inline.ruler.before("escape", "address", _address)
    md.block.ruler.before("fence", "formulas", _display, {"alt": _INTERRUPTED})


def _formula(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    return _text(state, _FORMULA.match(state.src, state.pos, state.posMax), silent)


def _address(state: StateInline, silent: bool) -> bool:
    if not re.search(r"\bhttps?\Z", state.src[max(0, state.pos - 6) : state.pos]):
        return False
    return _text(state, _ADDRESS.match(state.src, state.pos, state.posMax), silent)


def _text(state: StateInline, found: re.Match[str] | None, silent: bool) -> bool:
    if found is None:
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


def _display(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """Read a formula that begins a line, as a block of code; its end may not be there yet."""
    begins = state.bMarks[first] + state.tShift[first]
    opening = _DISPLAY.match(state.src, begins, state.eMarks[first])
    if opening is None or state.is_code_block(first):
        return False
    closing = "$$" if opening[1] else r"\]" if opening[2] else rf"\end{{{opening[3]}}}"
    start, end, found = opening.end(), first, ""
    for end in range(first, last):
        if state.isEmpty(end) or (end > first and state.sCount[end] < state.blkIndent):
            return False
        _, found, behind = state.src[start : state.eMarks[end]].partition(closing)
        if found and behind.strip(" .,;"):
            return False
        if found:
            break
        start = state.eMarks[end]
    if not silent:
        state.line = end + 1
        token = state.push("code_block", "code", 0)
        token.content = state.getLines(first, end + 1, state.blkIndent, False)
        token.map = [first, end + 1]
        token.meta[OPEN] = not found
    return True
