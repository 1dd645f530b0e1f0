"""Markdown of models as HTML: whole formulas, highlighted code, and nothing that runs."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_graph.server.page_api.markdown import rendered

WHOLE = [
    r"$\frac{a}{b}$",
    r"$$\frac{a}{b}$$",
    r"\(\frac{a}{b}\)",
    r"\[\frac{a}{b}\]",
    r"Before \[\frac{a}{b}\] behind.",
    "Before\n\\[\n\\frac{a}\n{b}\n\\]\nbehind.",
    "Before\n$$\n\\frac{a}\n{b}\n$$\nbehind.",
    "> Quoted:\n> $$\n> \\frac{a}{b}\n> $$",
    "- an item:\n  $$\n  \\frac{a}{b}\n  $$",
    "\\begin{align}\n\\frac{a}{b}\n\\end{align}",
    "```math\n\\frac{a}{b}\n```",
    "| a |\n|---|\n| $\\frac{a}{b}$ |",
]


@pytest.mark.parametrize("text", WHOLE)
def test_formulas_are_mathml(text: str):
    html = rendered(text)
    assert html.count("<math") == 1
    assert re.search(r"<mfrac>.*a.*b.*</mfrac>", html)
    assert "\\frac" not in re.sub(r'alttext="[^"]*"', "", html)


def test_signs_between_delimiters_are_not_markdown():
    html = rendered("$a_1 * b_2 * c$ and:\n$$\na\n+ b\n- c\n$$")
    assert "<em>" not in html
    assert "<ul" not in html
    assert html.count("<math") == 2


@pytest.mark.parametrize("text", ["$$ a", "\\[ a", "$$\na\n\nb", "$$$$", "\\[\\]", "$$\n\n- a"])
def test_an_unfinished_formula_is_text(text: str):
    assert "<math" not in rendered(text)


@pytest.mark.parametrize("text", ["It costs $5, or $10 abroad.", "`$x$`", "a \\$x\\$ b"])
def test_other_dollars_are_text(text: str):
    assert "<math" not in rendered(text)


def test_a_formula_that_cannot_be_converted_is_shown_as_code():
    assert rendered("$x^$") == '<p dir="auto"><code>x^</code></p>\n'
    assert "<code>" in rendered(f"${'{' * 3000}$")


def test_code_is_highlighted_by_classes_and_unknown_languages_are_plain():
    html = rendered('```python\ndef f(): return "<b>"\n```')
    assert '<span class="hl-k">def</span>' in html
    assert "&lt;b&gt;" in html
    assert "style=" not in html
    assert rendered("```nope\na < b\n```").endswith("a &lt; b\n</code></pre>\n")


def test_task_lists_have_labelled_boxes():
    html = rendered("- [x] done\n- [ ] open")
    assert html.count("<label><input") == 2
    assert html.count("checked=") == 1


def test_blocks_have_the_direction_of_their_text():
    html = rendered("# שלום\n\nhello\n\n- مرحبا")
    assert html.count('dir="auto"') == 4


def test_cells_are_aligned_without_styles():
    html = rendered("|a|b|c|\n|:-|:-:|-:|\n|1|2|3|")
    assert "style" not in html
    for place in ("left", "center", "right"):
        assert html.count(f'class="align-{place}"') == 2


@pytest.mark.parametrize(
    ("address", "behind"),
    [
        ("https://github.com/a/__init__.py", ""),
        ("http://localhost:2024/docs/*a*b_c_d", "."),
        ("https://en.wikipedia.org/wiki/A_(b)_c", ", and"),
        ("https://x.y/~~a~~", ")"),
        ("https://x.y/?a=$1&b=$2", " or"),
    ],
)
def test_addresses_are_whole_and_links(address: str, behind: str):
    html = unescape(rendered(f"see {address}{behind}"))
    assert f'<a href="{address}"' in html
    assert f">{address}</a>{behind}</p>" in html


@pytest.mark.parametrize(
    "text",
    ["setup.py", "example.com", "me@example.com", "mailto:me@example.com", "ftp://x.y", "//x.y",
     "javascript://x.y/%0aalert(1)", "data:text/html,x", "`https://x.y`", "    https://x.y"],
)  # fmt: skip
def test_other_text_is_no_link(text: str):
    assert "<a" not in rendered(text)


@pytest.mark.parametrize(
    "text", ["#", "> >", "-", "+", "1.", "2)", "- \n-", "```", "~~~x", "|", "*"]
)
def test_marks_without_text_are_shown_as_they_are(text):
    parser = _Elements()
    parser.feed(rendered(text))
    assert "".join(parser.text).strip("\n") == text


@pytest.mark.parametrize("depth", [3, 9, 25, 120, 500])
def test_no_depth_of_nesting_loses_text(depth):
    items = "".join(f"{'  ' * level}- item{level}\n" for level in range(depth))
    for text in (items, f"{'> ' * depth}item0", f"{'- ' * depth}item0"):
        assert re.findall(r"item\d+", rendered(text)) == re.findall(r"item\d+", text)


SAFE = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "span",
    "em", "strong", "s", "a", "hr", "br", "table", "thead", "tbody", "tr", "th", "td", "label",
    "input", "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded",
    "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub",
    "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![a](https://example.org/a.png)",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1)) [b](data:text/html,x) [c](vbscript:x)",
    "<javascript:alert(1)>",
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{&lt;script&gt;}$ $\text{&#60;img src=x onerror=alert(1)&#62;}$",
    r"$\href{javascript:alert(1)}{a}$ $\style{position:fixed}{a}$ $\class{x}{a}$",
    r"$\color{red\" onclick=\"alert(1)}{a}$",
    r"\[\begin{array}{c\" onload=\"x}a\end{array}\]",
    '```x" onclick="alert(1)\na\n```',
    "```python\n</code><script>alert(1)</script>\n```",
    '[a](https://example.org "\\" onclick=alert(1)")',
    "- [x] <script>alert(1)</script>",
]  # fmt: skip
PIECES = [*HOSTILE, "$", "$$", "\\(", "\\)", "\\[", "\\]", "```", "\n", "\n\n", "|", "\n|a|\n|:-:|\n|", "- ", "> ", "{",
          "}", '"', "'", "<", ">", "&", "\\text{", "\\begin{align}", "\\end{align}"]  # fmt: skip


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check_inert(text: str) -> None:
    parser = _Elements()
    parser.feed(rendered(text))
    for tag, attributes in parser.found:
        assert tag in SAFE, text
        for name, value in attributes.items():
            assert not name.startswith("on"), text
            assert name not in {"style", "src", "id", "srcset", "xlink:href"}, text
            if name == "href":
                assert tag == "a"
                assert not re.match(r"\s*(javascript|data|vbscript):", value or "", re.IGNORECASE)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_models_write_is_inert(text: str):
    check_inert(text)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_mixture_of_hostile_pieces_is_inert(text: str):
    check_inert(text)
