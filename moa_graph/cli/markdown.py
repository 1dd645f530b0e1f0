"""Markdown that a model writes, as blocks for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import (
    CodeBlock,
    Heading,
    HorizontalRule,
    ListItem,
    Markdown,
    MarkdownElement,
    TableElement,
)
from rich.measure import Measurement
from rich.rule import Rule
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from moa_graph.cli.lines import inert
from moa_graph.cli.verbatim import OPEN, verbatim

# Tags are text: an answer may have `vector<int>`. Definitions of links would not be shown.
_MOST_NESTED = 100  # the parser drops what is nested deeper
_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": _MOST_NESTED})
_PARSER.enable(["strikethrough", "table"])
_PARSER.disable("reference").use(verbatim)

_ANY_WIDTH = 100_000
_MOST_INDENTED, _LEAST_WIDTH = 60, 10  # cells
_INDENTED = {"list_item_open": 3, "blockquote_open": 4}
_CODE_THEME = "ansi_dark"  # the terminal's own colours, without a background


class Answer:
    """An answer that arrives in pieces: its finished blocks, and the block that is being written.

    A block is a paragraph, a list, a table, a code block … at the top level. It is finished when
    the next one begins, so that text that is printed once never changes.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._from = 0

    def add(self, piece: str) -> None:
        """Add the next piece of the text."""
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        """All of the text so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def finished(self) -> list[str]:
        """Return the blocks that are finished since the last call, as Markdown."""
        # The beginning of a line does not tell what it is: `3` may become `3.`, an item.
        lines = self.rest[: self.rest.rfind("\n") + 1]
        blocks, is_open = _split(lines)
        # What looks like a formula may turn out to belong to the paragraph before it.
        count = max(0, len(blocks) - (2 if is_open else 1))
        if blocks:
            self._from += len(lines) - sum(map(len, blocks[count:]))
        return blocks[:count]

    @property
    def rest(self) -> str:
        """The text of the block that is being written."""
        return self.text[self._from :]

    def end(self) -> list[str]:
        """Return the blocks that are left at the end of the text."""
        blocks = blocks_of(self.rest)
        self._from = len(self.text)
        return blocks


def blocks_of(text: str) -> list[str]:
    """Split Markdown into blocks of the top level; joined, they are the text."""
    return _split(text)[0]


def _split(text: str) -> tuple[list[str], bool]:
    """Return the blocks of a text, and whether the last one is a formula without an end."""
    # Lines as the parser counts them; `splitlines` would also split at other characters.
    ends = [i + 1 for i, character in enumerate(text) if character == "\n"]
    tokens = _PARSER.parse(_inert_lines(text))
    starts = [t.map[0] for t in tokens if t.level == 0 and t.map and t.nesting != -1]
    places = [0, *(ends[line - 1] for line in starts[1:]), len(text)]
    blocks = [text[a:b] for a, b in pairwise(places) if text[a:b].strip()]
    return blocks, any(token.meta.get(OPEN) for token in tokens)


def _inert_lines(text: str) -> str:
    """Return text of equal lines without control characters; a CR becomes white space."""
    return inert(text.replace("\r", " "))


class Block(Markdown):
    """Markdown for a terminal, in which nothing is lost and the text has no effects.

    Raw HTML is text; links show their address; a table that is too wide for the screen is a list
    of its rows. What has marks and no text, or is nested too deeply for the screen, is shown as
    it is written.
    """

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=_CODE_THEME, hyperlinks=False)
        self.markup = text
        self.parsed = _PARSER.parse(_inert_lines(text))
        for token in self.parsed:
            if token.children:
                token.children = list(_with_addresses(token.children))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        most = min(_MOST_INDENTED, options.max_width - _LEAST_WIDTH)
        if _has_text(self.parsed) and _indentation(self.parsed) <= max(most, _LEAST_WIDTH):
            yield from super().__rich_console__(console, options)
        else:
            yield Text(_inert_lines(self.markup).strip("\n"))


def _has_text(tokens: list[Token]) -> bool:
    return any(token.content.strip() or token.type == "hr" for token in tokens)


def _indentation(tokens: list[Token]) -> int:
    """Return the cells before the most deeply nested text."""
    now = most = 0
    for token in tokens:
        now += token.nesting * _INDENTED.get(token.type.replace("_close", "_open"), 0)
        most = max(most, now)
    cut = any(token.level >= _MOST_NESTED - 1 for token in tokens)
    return _ANY_WIDTH if cut else most


def _with_addresses(tokens: list[Token]) -> Iterator[Token]:
    """Replace links and images by text, with the address if the text is another one."""
    href, shown = "", ""
    for token in tokens:
        if token.type == "link_open":
            href, shown = str(token.attrs.get("href", "")), ""
        elif token.type == "link_close":
            if _is_other(shown, href):
                yield _text(f" ({href})")
            href = ""
        elif token.type == "image":
            source = str(token.attrs.get("src", ""))
            yield _text(f"{token.content or 'image'} ({source})")
        else:
            shown += token.content
            yield token


def _is_other(shown: str, href: str) -> bool:
    return shown not in {href, href.removeprefix("mailto:")} and bool(href)


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


class _Heading(Heading):
    """A heading at the left."""

    LEVEL_ALIGN: ClassVar = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Item(ListItem):
    """An item of a list; its number has a dot, as it was written."""

    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        width = len(f"{last_number - 1}. ")
        style = console.get_style("markdown.item.number")
        inner = options.update(width=options.max_width - width)
        for place, line in enumerate(console.render_lines(self.elements, inner, style=self.style)):
            yield Segment((f"{number}. " if place == 0 else "").rjust(width), style)
            yield from line
            yield Segment.line()


class _Code(CodeBlock):
    """A code block that is indented by two cells."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 2))


class _Table(TableElement):
    """A table; a list of its rows if the longest words of its columns do not fit side by side."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            table.show_edge = False
            wide = options.update(width=_ANY_WIDTH)
            if Measurement.get(console, wide, table).minimum <= options.max_width:
                yield table
            else:
                yield from self._rows()

    def _rows(self) -> Iterator[Text]:
        heads = (
            [cell.content for cell in self.header.row.cells]
            if (self.header and self.header.row)
            else []
        )
        for number, row in enumerate(self.body.rows if self.body else ()):
            if number:
                yield Text()
            for head, cell in zip(heads, row.cells, strict=False):
                if cell.content:
                    yield Text.assemble(head, ": ", cell.content)


class _Rule(HorizontalRule):
    """A line from edge to edge."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(style="markdown.hr")


Block.elements = {
    **Markdown.elements,
    "heading_open": _Heading,
    "fence": _Code,
    "code_block": _Code,
    "table_open": _Table,
    "hr": _Rule,
    "list_item_open": _Item,
}
