"""Markdown of models as HTML in which nothing runs and nothing is loaded."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from mdit_py_plugins.tasklists import tasklists_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from moa_graph.server.page_api.formulas import formulas, mathml

_LONGEST_CODE = 50_000  # characters; longer code is not highlighted
_MOST_NESTED = 100  # the parser drops what is nested deeper
_MATH = ("math", "latex-math")
_DIRECTED = frozenset(
    ("paragraph", "heading", "list_item", "blockquote", "bullet_list", "ordered_list", "table")
)


def rendered(text: str) -> str:
    """Return Markdown as HTML: with formulas as MathML, highlighted code, and task lists.

    Embedded HTML is shown as text, images are left out, and links open in a new tab. A text that
    has marks and nothing else, or is nested too deeply, is shown as it is written.

    Args:
        text: The Markdown. It is not trusted.
    """
    tokens = _markdown.parse(text)
    has_text = any(token.content.strip() or token.type == "hr" for token in tokens)
    if text.strip() and (not has_text or any(t.level >= _MOST_NESTED - 1 for t in tokens)):
        return f'<p class="plain" dir="auto">{html.escape(text)}</p>\n'
    return str(_markdown.renderer.render(tokens, _markdown.options, {}))


def _highlighted(code: str, language: str, attributes: str) -> str:
    """Return code with a class for each kind of token; "" for an unknown language."""
    del attributes
    if language in _MATH:
        return f'<p class="formula">{mathml(code, display=True)}</p>'
    if not language or len(code) > _LONGEST_CODE:
        return ""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, _formatter))


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Render a block of code; one of the language `math` is a formula."""
    if tokens[index].info.strip() in _MATH:
        return _highlighted(tokens[index].content, "math", "") + "\n"
    return str(RendererHTML.fence(self, tokens, index, options, env))


def _outside(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Open links in a new tab, without a reference to this page."""
    tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer nofollow"}
    return self.renderToken(tokens, index, options, env)


def _with_directions(state: StateCore) -> None:
    """Let each block have the direction of its own text."""
    for token in state.tokens:
        if token.nesting == 1 and token.type.removesuffix("_open") in _DIRECTED:
            token.attrSet("dir", "auto")


def _with_alignments(state: StateCore) -> None:
    """Align cells of tables by a class: the page allows no styles in elements."""
    for token in state.tokens:
        if style := token.attrs.pop("style", None):
            token.attrSet("class", str(style).replace("text-align:", "align-"))


def _parser() -> MarkdownIt:
    options: Any = {
        "html": False,
        "highlight": _highlighted,
        "linkify": True,
        "maxNesting": _MOST_NESTED,
    }
    md = MarkdownIt("commonmark", options).disable("image")
    md.enable(["table", "strikethrough", "linkify"])
    # Only whole addresses are links: a file name such as `setup.py` looks like a host.
    linkify: Any = md.linkify
    linkify.set({"fuzzy_link": False, "fuzzy_email": False})
    for scheme in ("//", "ftp:", "mailto:"):
        linkify.add(scheme, None)
    md.use(formulas).use(tasklists_plugin, label=True)
    md.core.ruler.push("directions", _with_directions)
    md.core.ruler.push("alignments", _with_alignments)
    md.add_render_rule("link_open", _outside)
    md.add_render_rule("fence", _fence)
    return md


_formatter = HtmlFormatter(nowrap=True, classprefix="hl-")
_markdown = _parser()
