"""Formulas in LaTeX as MathML, with the elements and attributes of an allowlist only."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

_LONGEST = 5_000  # characters of a formula; the converter's time grows with the square
_ELEMENTS = frozenset({
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom",
    "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup",
    "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
})  # fmt: skip
_ATTRIBUTES = frozenset({
    "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "depth", "display",
    "displaystyle", "fence", "form", "height", "linethickness", "lspace", "mathbackground",
    "mathcolor", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits", "notation",
    "rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "stretchy", "voffset", "width",
})  # fmt: skip
_KINDS = {r"\(": ("math_inline", r"\)"), r"\[": ("math_inline_double", r"\]")}
_CLOSINGS = {"$$": "$$", r"\[": r"\]"}
_INTERRUPTED = ["paragraph", "reference", "blockquote", "list"]
_NUMBERED = re.compile(r"\\(begin|end)\{(align|alignat|equation|gather|multline)\}")


def formulas(md: MarkdownIt) -> None:
    r"""Plugin of `MarkdownIt`: `$…$`, `$$…$$`, `\(…\)`, `\[…\]` and `\begin{align}` as MathML.

    Args:
        md: The parser.
    """
    dollarmath_plugin(md, allow_labels=False, allow_digits=False, double_inline=True)
    amsmath_plugin(md)
    md.inline.ruler.before("escape", "math_brackets", _brackets)
    md.block.ruler.before("math_block", "math_display", _display_block, {"alt": _INTERRUPTED})
    for kind in ("math_inline", "math_inline_double"):
        md.add_render_rule(kind, _render(display=kind == "math_inline_double"))
    for kind in ("math_block", "amsmath"):
        md.add_render_rule(kind, _render(display=True, block=True))


def mathml(latex: str, *, display: bool) -> str:
    """Return a formula as MathML; as code if it cannot be converted.

    Args:
        latex: The formula, without delimiters. It is not trusted.
        display: Whether it stands in a line of its own.
    """
    latex = _NUMBERED.sub(r"\\\1{\2*}", latex.strip())
    source = html.escape(latex)
    if len(latex) > _LONGEST:
        return f"<code>{source}</code>"
    try:
        tree = convert_to_element(latex, display="block" if display else "inline")
        tree.set("alttext", latex)
        return "".join(_written(tree))
    except Exception:  # noqa: BLE001 - the converter raises many kinds of errors
        return f"<code>{source}</code>"


def _render(*, display: bool, block: bool = False) -> Callable[..., str]:
    def render(_: Any, tokens: Sequence[Any], index: int, *__: Any) -> str:
        made = mathml(tokens[index].content, display=display)
        if block:
            return f'<p class="formula">{made}</p>\n'
        if not made.startswith("<math"):
            return made  # code, which is wrapped
        return f'<span class="{"formula" if display else "inline-formula"}">{made}</span>'

    return render


def _brackets(state: StateInline, silent: bool) -> bool:
    r"""Read `\(…\)` and `\[…\]` within a paragraph."""
    kind = _KINDS.get(state.src[state.pos : state.pos + 2])
    if kind is None:
        return False
    name, closing = kind
    end = state.src.find(closing, state.pos + 2, state.posMax)
    if end < 0 or not state.src[state.pos + 2 : end].strip():
        return False
    if not silent:
        state.push(name, "math", 0).content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _display_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""Read `$$…$$` and `\[…\]` that begin a line, also right behind a paragraph's lines."""
    if state.is_code_block(first):
        return False
    opening = state.src[state.bMarks[first] + state.tShift[first] :][:2]
    if opening not in _CLOSINGS:
        return False
    closing, lines = _CLOSINGS[opening], []
    for line in range(first, last):
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
        inner, found, rest = text[2 if line == first else 0 :].partition(closing)
        lines.append(inner)
        if line > first and state.sCount[line] < state.blkIndent:
            return False
        if found:
            break
    else:
        return False
    if rest.strip(" .,;") or not "".join(lines).strip():
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.block, token.content, token.map = True, "\n".join(lines), [first, line + 1]
        state.line = line + 1
    return True


def _written(element: Element) -> list[str]:
    """Return the parts of an element's HTML. The converter's own output is not escaped."""
    tag = element.tag if element.tag in _ELEMENTS else "mrow"
    names = {*_ATTRIBUTES, "alttext"} if tag == "math" else _ATTRIBUTES
    attributes = "".join(
        f' {name}="{html.escape(str(value))}"'
        for name, value in element.attrib.items()
        if name in names
    )
    inner = [part for child in element for part in _written(child)]
    text = html.escape(html.unescape(element.text or ""))
    return [f"<{tag}{attributes}>", text, *inner, f"</{tag}>"]
