"""What the command prints in a terminal, part by part; `test_screens.py` has whole screens."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import stat
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from moa_graph.cli import view
from moa_graph.cli.app import app
from moa_graph.cli.chats import Chat, Chats, opened
from moa_graph.cli.consoles import new_console
from moa_graph.cli.footer import Prices, Used, cost_of, parts_of, tokens_of
from moa_graph.cli.lines import cut, dollars, inert, joined, one_line, padded
from moa_graph.cli.markdown import Answer, blocks_of
from moa_graph.cli.progress import Row, decision_lines
from moa_graph.cli.prompt import Prompt
from moa_graph.cli.running import EndOfInput
from moa_graph.cli.screen import show_markdown
from moa_graph.presets.configuration import Configuration

MARKDOWN = (Path(__file__).parent / "answer.md").read_text()
WIDTHS = (20, 40, 60, 80, 200)


def shown(text: str, width: int) -> str:
    """Markdown as a terminal of that width shows it, without styles."""
    console = Console(file=io.StringIO(), width=width)
    show_markdown(console, text)
    return console.file.getvalue()


# --- lines -------------------------------------------------------------------------------------

NAMES = [
    "a",
    "qwen2.5-coder-0.5b",
    "漢字かな交じり文のとても長い名前",
    "👩‍👩‍👧 family",
    "نموذج عربي طويل",
    "",
]


@pytest.mark.parametrize("width", [0, 1, 2, 3, 8, 13, 30])
@pytest.mark.parametrize("text", [*NAMES, "a reason of several words", "x" * 40])
def test_a_line_that_is_cut_is_never_too_wide(text, width):
    line = cut(text, width)
    assert cell_len(line) <= width
    assert line == text if cell_len(text) <= width else line.endswith("…"[:width])
    assert cell_len(padded(text, width)) == width


def test_a_line_is_cut_between_words():
    assert cut("one reason of many words", 14) == "one reason of…"
    assert cut("one reason of many words", 13) == "one reason…"
    assert cut("unbreakablewordthatislong", 10) == "unbreakab…"


def test_parts_are_joined_into_lines_that_end_between_them():
    parts = ["4 models", "", "12.3 s", "first token 3.4 s", "99 tokens in, 17 out", "$0.0012"]
    assert joined(parts, 200) == [
        "4 models · 12.3 s · first token 3.4 s · 99 tokens in, 17 out · $0.0012"
    ]
    lines = joined(parts, 30)
    assert lines == ["4 models · 12.3 s", "first token 3.4 s", "99 tokens in, 17 out · $0.0012"]
    assert joined(parts, 12)[2:] == ["first token", "3.4 s", "99 tokens", "in, 17 out", "$0.0012"]


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "$0"),
        (0.00029, "$0.00029"),
        (0.0012, "$0.0012"),
        (0.5, "$0.50"),
        (12.345, "$12.35"),
        (1234.5, "$1,234.50"),
    ],
)
def test_dollars_have_two_digits(amount, words):
    assert dollars(amount) == words


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
ATTACKS = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://x\x1b\\y",
    "\x9b31m",
    "\x90q\x9c",
    "\rover",
]


PLACES = [
    "{}", "# a {}", "- a {}", "```\na{}b\n```", "```{}\nx\n```", "|a{}|b|\n|--|--|\n|{}|c|",
    "[a{}](http://x/{})", "> a {}", "`a{}`", "    a{}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_control_characters_of_a_model_have_no_effect(place):
    for attack in [*CONTROLS, *ATTACKS, "\u202e", "\ud83d"]:
        text = place.replace("{}", attack)
        for printed in (shown(text, 60), inert(text).replace("\t", ""), one_line(text)):
            assert not set(printed) & {*CONTROLS, "\u202e"}, ascii(attack)
            printed.encode()


# --- Markdown ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_an_answer_in_pieces_is_shown_as_the_whole(size):
    answer, printed = Answer(), []
    for i in range(0, len(MARKDOWN), size):
        answer.add(MARKDOWN[i : i + size])
        printed += answer.finished()
    printed += answer.end()
    assert "".join(printed) == MARKDOWN
    assert printed == blocks_of(MARKDOWN)
    assert answer.end() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_is_wrapped_and_no_markdown_is_left(width):
    lines = shown(MARKDOWN, width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    words = set(re.findall(r"[A-Za-z0-9]+", MARKDOWN))
    for word in re.findall(r"[A-Za-z0-9]+", "\n".join(lines)):
        assert word in words or len(max(words, key=len)) > width, f"{word!r} at {width}"
    prose = [line for line in lines if "not bold" not in line]
    assert not re.search(r"\*\*|^#|```|\|--|~~|\]\(", "\n".join(prose), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`vector<int>` and vector<int>", "vector<int> and vector<int>"),
        ("a<br>b", "a<br>b"),
        ("<details>\nx\n</details>", "<details> x </details>"),
        ("[text](https://e.com/x)", "text (https://e.com/x)"),
        ("<https://e.com/x>", "https://e.com/x"),
        ("[https://e.com](https://evil.com)", "https://e.com (https://evil.com)"),
        ("![alt](https://e.com/i.png)", "alt (https://e.com/i.png)"),
        ("[text][1]\n\n[1]: https://e.com", "[text][1]\n\n[1]: https://e.com"),
        ("a * b * c", "a * b * c"),
        ("~~old~~ **new**", "old new"),
        ("", ""),
        (r"So \( a_1 * b \\ c * d \) and $x_1*y$.", r"So \( a_1 * b \\ c * d \) and $x_1*y$."),
        ("It costs $5 *or* $6.", "It costs $5 or $6."),
        ("`$a` *or* `b$`", "$a or b$"),
        ("at https://e.com/__init__.py, *now*", "at https://e.com/__init__.py, now"),
        ("**https://e.com/a_b**", "https://e.com/a_b"),
        ("1986. A year", "1986. A year"),
        ("text\n$$\na \\\\\n- b * c *\n$$\n*end*", "text\n\n  $$\n  a \\\\\n  - b * c *\n  $$\n\nend"),
        ("- item\n  \\[\n  a * b * c\n  \\]\n- *next*", "• item\n     \\[\n     a * b * c\n     \\]\n • next"),
        ("\\begin{align}\na &= b \\\\\n\\end{align}", "\\begin{align}\n  a &= b \\\\\n  \\end{align}"),
        ("$$ *x*\n\nend", "$$ x\n\nend"),
    ],
)  # fmt: skip
def test_no_text_is_lost(text, words):
    assert shown(text, 80).strip() == words


MARKS = [
    "#",
    "##",
    ">",
    "> >",
    "-",
    "+",
    "*",
    "1.",
    "2)",
    "```",
    "~~~",
    "```python",
    "|",
    "_",
    "- \n-",
]


@pytest.mark.parametrize("text", MARKS)
def test_marks_without_text_are_shown_as_they_are(text):
    assert [line.rstrip() for line in shown(text, 40).splitlines()] == text.replace(
        " \n", "\n"
    ).split("\n")


@pytest.mark.parametrize("depth", [3, 9, 25, 120])
@pytest.mark.parametrize("width", [20, 60, 200])
def test_no_depth_of_nesting_loses_text(depth, width):
    items = "".join(f"{'  ' * level}- item{level}\n" for level in range(depth))
    for text in (items, f"{'> ' * depth}item0", f"{'- ' * depth}item0"):
        printed = re.sub(r"\s", "", shown(text, width))
        assert re.findall(r"item\d+", printed) == re.findall(r"item\d+", text)


PIECES = "text\n$$ no formula\n- item\n\n$$\na\n+ b\n$$\n\n\\[\nx\n\nend\n> $$\n> q\n> $$\n1. a\n$$"


@pytest.mark.parametrize("size", range(1, 6))
def test_formulas_in_pieces_are_shown_as_the_whole(size):
    answer, printed = Answer(), []
    for i in range(0, len(PIECES), size):
        answer.add(PIECES[i : i + size])
        printed += answer.finished()
    assert printed + answer.end() == blocks_of(PIECES)


def test_a_table_that_is_too_wide_is_a_list_of_its_rows():
    table = "|name|" + "|".join(f"column{i}" for i in range(8)) + "|\n" + "|--" * 9 + "|\n"
    table += "|first|" + "|".join(str(i) for i in range(8)) + "|\n|second" + "|x" * 8 + "|\n"
    assert "column0  column1" in shown(table, 100)
    lines = shown(table, 40).splitlines()
    assert lines[:2] == ["name: first", "column0: 0"]
    assert lines[9:12] == ["", "name: second", "column0: x"]


# --- progress ----------------------------------------------------------------------------------

ROWS = [
    Row(1, "a", "a", "ok", 12, 1.23),
    Row(
        2,
        "a-very-long-name-of-a-model/with-parts:and-a-tag",
        "x",
        "timed out",
        None,
        61.0,
        "no answer within 60 s",
    ),
    Row(1, "漢字かな", "x", "failed", None, 0.1, "Error\x1b[2J of\n several   words " * 9),
    Row(3, "👩‍👩‍👧", "x", "writing", 12345),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.state)
@pytest.mark.parametrize("width", [8, 20, 34, 50, 60, 80, 200])
@pytest.mark.parametrize("layers", [True, False])
def test_a_proposer_is_one_line(row, width, layers):
    names = max(cell_len(row.name) for row in ROWS)
    line = row.line(width, names, layers=layers).plain
    assert cell_len(line) <= width
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert row.fields[1][:2] in line
    if width >= 20:
        assert row.state[:6] in line
    if width >= 60:
        assert re.search(r"\d\.\d s", line)  # of a row that writes, it grows meanwhile
        assert not row.error or row.fields[5][:5] in line
    assert "\n" not in row.plain().plain


def decision(outcome: str, **fields):
    plain = {
        "step": "s",
        "layer": 1,
        "turn": 1,
        "kept": [],
        "left_out": {},
        "by": "",
        "error": None,
        "usage": None,
        "attempts": 0,
    }
    return {**plain, "outcome": outcome, **fields}


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (decision("kept", kept=["a", "b"], left_out={"c": "too similar"}, by="judge"), "kept of layer 1: a and b (by a judge's verdict); left out: c (too similar)"),
        (decision("chosen", kept=["a"], by="votes"), "chosen: a (by their answers)"),
        (decision("exit", by="similarity"), "the proposals of layer 1 agree: no other layer is asked (by their similarity)"),
        (decision("alone"), "the first pass answers alone"),
        (decision("own_word", error="the judge\nfailed"), "own_word; the judge failed"),
        (decision("written", step="analysis", by="m\x1bx"), "layer 1 was analysed for the aggregator (by m␛x)"),
    ],
)  # fmt: skip
def test_a_decision_is_one_line(made, line):
    assert decision_lines(made, None) == decision_lines(made, cell_len(line)) == [line]


def test_a_decision_that_is_too_wide_has_a_line_for_each_part():
    made = decision(
        "chosen", kept=["漢字"], by="votes", left_out={"b": "failed", "c": "not chosen"}
    )
    assert decision_lines(made, 40) == [
        "chosen: 漢字 (by their answers)",
        "left out: b (failed) and c (not chosen)",
    ]
    for width in (8, 20, 30):
        assert all(cell_len(line) <= width for line in decision_lines(made, width))


# --- the footer --------------------------------------------------------------------------------


def usage(given: int, written: int):
    return {"input_tokens": given, "output_tokens": written, "total_tokens": given + written}


def test_the_footer_leaves_out_what_is_not_known():
    used = [Used("a", usage(1000, 100)), Used("a", None), Used("", usage(1, 1))]
    assert tokens_of(used) == (1001, 101)
    parts = parts_of(used, Prices(), seconds=2, first_token=None)
    assert [part for part in parts if part] == ["1 model", "2.0 s", "1,001 tokens in, 101 out"]
    prices = Prices(own={"a": (1.0, 10.0)})
    assert cost_of(used[:1], prices) == "$0.0020"
    assert cost_of(used, prices) == "at least $0.0020"
    assert cost_of([], prices) == ""


def test_prices_are_those_of_the_package_and_of_the_configuration():
    limits = {"tokens": 10**6, "prices": {"own": (3.0, 4.0)}}
    mixture = Configuration(
        proposers=["openai:gpt-4o", "openai:own"], aggregator="openai:nobody", limits=limits
    )
    prices = Prices.of(mixture)
    assert prices.price("gpt-4o") == (2.5, 10.0)
    assert prices.price("own") == (3.0, 4.0)
    assert prices.price("nobody-knows-it") is None


# --- commands ----------------------------------------------------------------------------------

MIXTURE = """
proposers = ["openai:a", "openai:b"]
aggregator = { model = "openai:agg?varies", params = { api_key = "sk-0123456789", seed = 3 } }
"""


@pytest.fixture
def moa(server, monkeypatch, tmp_path):
    """`moa("chat", stdin="hi")`: the command with models of the fake server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("MOA_CHATS", str(tmp_path / "kept" / "chats.sqlite"))
    monkeypatch.setenv("COLUMNS", "60")
    (tmp_path / "moa.toml").write_text(MIXTURE)
    (tmp_path / "other.toml").write_text('proposers=["openai:c"]\naggregator="openai:other"')
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, lines: list[str] | None = None, terminal: bool = False):
        environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color"} if terminal else {}
        given = "\n".join(lines) + "\n" if lines else None
        return CliRunner().invoke(app, arguments, input=given, env=environment)

    return run


def plain(output: str) -> str:
    """The text without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", output)


def test_a_pipe_receives_the_answer_and_nothing_else(moa, server):
    server.answers["agg"] = answer = MARKDOWN + "\x1b[2J \x9b31m\r\n漢字"
    assert moa("ask", "hi", "-c", "moa.toml").stdout_bytes.decode() == f"1: {answer}\n"


def test_a_terminal_shows_markdown_and_each_block_once(moa, server, monkeypatch):
    monkeypatch.setattr(view, "_INTERVAL", 60)  # what is shown while it is written is erased
    server.answers["agg"] = "x\n\n# Title\n\n**bold** `code`\n\n- one\n- two\n\n\x1b[2Jend"
    result = moa("ask", "hi", "-c", "moa.toml", terminal=True)
    text = plain(result.stdout)
    assert [text.count(word) for word in ("Title", "bold code", " • one", "␛[2Jend")] == [1] * 4
    assert "**" not in text
    assert "\x1b[2J" not in result.stdout
    assert re.search(r"a +ok +\d+\.\d s +2 tokens\n", plain(result.output))


def test_json_prints_no_view_in_a_terminal(moa):
    result = moa("ask", "hi", "-c", "moa.toml", "--json", terminal=True)
    assert json.loads(result.stdout)["answer"] == "1: agg: hi"
    assert result.stderr == ""


def test_a_decision_comes_before_the_answer_that_was_chosen(moa, server, tmp_path):
    (tmp_path / "vote.toml").write_text('proposers=["openai:a", "openai:b"]\naggregator="vote"')
    server.answer_all = "**42**"
    for terminal, answer in ((True, "\n42\n"), (False, "**42**\n")):
        text = plain(moa("ask", "hi", "-c", "vote.toml", terminal=terminal).output)
        assert text.count(answer) == 1
        assert text.index("chosen: a and b (by their answers)") < text.index(answer)
        assert "first token" not in text
        assert "2 models · " in text


def test_proposals_are_shown_in_full_in_a_terminal(moa, server):
    server.answers["a"] = "**bold** words"
    text = plain(moa("ask", "hi", "-c", "moa.toml", "--show-proposals", terminal=True).output)
    titles = re.findall(r"^(\S.*?) ─+$", text, re.MULTILINE)
    assert [title.split(" · ")[:-1] for title in titles[:2]] == [
        ["Layer 1", "a", "ok"],
        ["Layer 1", "b", "ok"],
    ]
    assert titles[2] == "Answer"
    assert "\nbold words\n" in text


def test_a_question_that_failed_is_kept_where_somebody_reads_it(moa, server, tmp_path):
    (tmp_path / "down.toml").write_text(
        'proposers=["openai:a"]\naggregator="openai:agg?fail_first=2"\ncalls={retries=0}'
    )
    result = moa("ask", "hi", "-c", "down.toml")
    assert result.exit_code == 1
    assert "--resume" not in result.stderr
    assert moa("chats").stdout == ""
    result = moa("ask", "hi", "-c", "down.toml", terminal=True)
    assert result.exit_code == 1
    (name,) = re.findall(r"moa chat --resume (\w+) goes on", plain(result.stderr))
    server.calls.clear()
    assert moa("chat", "--resume", name, lines=["/resume"]).stdout == "agg: hi\n"
    assert server.labels() == ["agg"]


def test_an_answer_that_ends_early_is_shown_as_far_as_it_came(moa, server, tmp_path):
    (tmp_path / "cut.toml").write_text('proposers=["openai:a"]\naggregator="openai:agg?cut=3"')
    server.answers["agg"] = "**one** two\n\nthree four five"
    text = plain(moa("ask", "hi", "-c", "cut.toml", terminal=True).output)
    assert "\none two\n\nthree\n\nThe aggregator agg?cut=3 failed" in text


async def test_lines_are_edited_pasted_completed_and_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    history = tmp_path / "chats.history"
    keys = [
        ("one\r", "one"),
        ("a\x1b\rb\r", "a\nb"),
        ("\x1b[200~two\nlines\x1b[201~\r", "two\nlines"),
        ("/pro\t 2\r", "/proposals 2"),
        ("\x1b[A\x1b[A\r", "two\nlines"),
        ("on\x1b[D\x1b[Cx\x7fe\r", "one"),
    ]
    with create_pipe_input() as given, create_app_session(input=given, output=DummyOutput()):
        prompt = Prompt(history, ["/proposals", "/retry"])
        for typed, line in keys:
            given.send_text(typed)
            assert await prompt._edited() == line
        given.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            await prompt._edited()
        given.send_text("\x04")
        with pytest.raises(EOFError):
            await prompt._edited()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+/proposals 2" in history.read_text()


def test_a_retry_asks_the_aggregator_alone(moa, server):
    result = moa("chat", "-c", "moa.toml", lines=["one", "two", "/retry", "/retry all", "three"])
    assert server.labels() == ["a", "b", "agg"] * 2 + ["agg"] + ["a", "b", "agg"] * 2
    said = [m["content"] for m in server.of("agg")[-1].messages if m["role"] != "system"]
    assert said == ["one", "1: agg: one", "two", "4: agg: two", "three"]
    assert "2 proposals are there already" in result.stderr


def test_a_run_that_failed_is_resumed(moa, server, tmp_path):
    (tmp_path / "moa.toml").write_text(
        'proposers=["openai:a"]\naggregator="openai:agg?fail_first=3"\ncalls={retries=0}'
    )
    lines = ["/resume", "/retry", "one", "/resume", "/resume", "/resume", "/resume", "/retry more"]
    result = moa("chat", "-c", "moa.toml", lines=lines)
    assert result.stdout == "agg: one\n"
    assert server.labels() == ["a", *["agg"] * 4]
    assert result.stderr.count("/resume tries again") == 3
    assert result.stderr.count("nothing to go on with") == 1
    assert result.stderr.count("There is no question yet.") == 2
    assert "/retry more: give nothing or `all`." in result.stderr


def test_another_mixture_answers_from_the_same_proposals_or_asks_its_own(moa, server):
    lines = ["one", "/model other.toml", "/retry", "/retry all"]
    result = moa("chat", "-c", "moa.toml", lines=lines)
    assert server.labels() == ["a", "b", "agg", "other", "c", "other"]
    assert result.stdout == "1: agg: one\nother: one\nother: one\n"
    assert "b: one" in server.of("other")[0].system
    assert "a: one" not in server.of("other")[1].system


def test_a_mixture_that_writes_in_steps_is_asked_again_as_a_whole(moa, server, tmp_path):
    (tmp_path / "steps.toml").write_text(
        'proposers=["openai:a"]\naggregator="openai:agg"\nprogressive="staircase"'
    )
    result = moa("chat", "-c", "steps.toml", lines=["one", "/retry"])
    assert "all models are asked" in result.stderr
    assert len(server.of("a")) == 2


def test_a_conversation_goes_on_in_another_process(moa, server):
    first = moa("chat", "-c", "moa.toml", lines=["one", "two"])
    name = re.search(r"moa chat --resume (\w+) goes on", first.stderr)[1]
    assert moa("chats").stdout.split("\t")[0::4] == [name, "one\n"]
    for given in (name, name[:6], "last"):
        result = moa("chat", "--resume", given, lines=["/proposals 1", "/cost"])
        assert result.stdout.startswith("2: agg: two\n")
        assert "Layer 1 · a · ok" in result.stdout
        assert "a: one" in result.stdout
        assert "b · 2 answers · 6 tokens in, 4 out" in result.stderr
    server.calls.clear()
    moa("chat", "--resume", name, lines=["three"])
    said = [m["content"] for m in server.of("agg")[0].messages if m["role"] != "system"]
    assert said == ["one", "1: agg: one", "two", "2: agg: two", "three"]
    assert server.of("agg")[0].key == "sk-test-0123456789"  # the key of the file is not kept
    assert server.of("agg")[0].body["seed"] == 3
    assert moa("chats", "--remove", name).exit_code == 0
    kept = Path(os.environ["MOA_CHATS"])
    assert b"agg: two" not in kept.read_bytes()
    assert "No conversation is kept" in moa("chats").stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chat", "--resume", "nothing"], "no conversation begins with 'nothing': `moa chats`"),
        (["chat", "--resume", "last"], "no conversation begins with 'last'"),
        (["chats", "--remove", "nothing"], "no conversation begins with 'nothing'"),
        (["chat", "--resume", ""], "no conversation begins with ''"),
        (["chats", "--remove", ""], "no conversation begins with ''"),
        (["chats", "--store", "."], "cannot be read"),
        (["chat", "--store", ".", "--resume", "last"], "The conversations in . cannot be used"),
    ],
)
def test_a_wrong_conversation_exits_with_2(moa, arguments, says):
    result = moa(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/rety", "There is no command /rety: did you mean /retry?"),
        ("/propsals 2", "did you mean /proposals?"),
        ("/what", "There is no command /what: /help lists them."),
        ("/etc/passwd what is it", "A space before / makes a line a question."),
        ("//", "A space before / makes a line a question."),
        ("/help", "A space before / makes a line a question."),
        ("/proposals", "There is no question yet."),
        ("/proposals 2", "There is no question yet."),
        ("/resume 2", "/resume 2: /resume takes nothing."),
        ("/cost all", "/cost all: /cost takes nothing."),
        ("/new one", "/new one: /new takes nothing."),
        ("/exit now", "/exit now: /exit takes nothing."),
        ("/quit now", "/quit now: /quit takes nothing."),
        ("/cost", "in all · 0 answers"),
        ("/model", "openai:a\nopenai:b\n"),
        ("/help", "/retry all    ask all models again"),
        ("/new", "A new conversation."),
    ],
)
def test_commands_of_a_chat(moa, server, line, says):
    result = moa("chat", "-c", "moa.toml", lines=[line])
    assert result.exit_code == 0
    assert says in result.stderr
    assert server.calls == []
    assert "goes on" not in result.stderr
    assert moa("chats").stdout == ""


@pytest.mark.parametrize("line", ["/etc/passwd what is it", "/retry", "/", "// is a comment?"])
@pytest.mark.parametrize("space", [" ", "\t", "   "])
def test_a_line_with_a_space_before_a_slash_is_a_question(moa, server, line, space):
    result = moa("chat", "-c", "moa.toml", lines=[f"{space}{line}  "])
    assert "There is no" not in result.stderr
    assert {call.messages[-1]["content"] for call in server.of("a")} == {line}
    assert len(server.calls) == 3


def test_turns_of_two_chats_in_one_conversation_are_counted(moa, monkeypatch):
    other = "moa chat --resume last"
    lines = iter(["one", other, "two", None, "three", "/proposals 9", None])

    def read(*_: object) -> str:
        line = next(lines)
        if line == other:
            moa("chat", "--resume", "last")
            line = next(lines)
        if line is None:
            raise EndOfInput
        return line

    monkeypatch.setattr(Prompt, "read", read)
    result = moa("chat", "-c", "moa.toml")
    assert "give a turn from 1 to 3." in result.stderr
    assert "3 turns" in moa("chats").stdout


def test_the_help_lists_what_can_be_written():
    text = CliRunner().invoke(app, ["chat", "--help"], env={"COLUMNS": "100"}).stdout
    for command in ("/retry all", "/resume", "/proposals 2", "/cost", "Alt-Enter", "moa chats"):
        assert command in text


# --- what is kept ------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes of files are those of POSIX")
def test_only_the_user_can_read_what_is_kept(moa):
    moa("chat", "-c", "moa.toml", lines=["secret"])
    kept = Path(os.environ["MOA_CHATS"])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("store", [":memory:", "/dev/null/chats.sqlite"])
def test_a_chat_that_cannot_be_kept_is_a_chat(moa, store):
    result = moa("chat", "-c", "moa.toml", "--store", store, lines=["one", "/retry"])
    assert result.stdout == "1: agg: one\n2: agg: one\n"
    assert "goes on" not in result.stderr
    assert ("are not kept" in result.stderr) == (store != ":memory:")


@pytest.fixture
def full(monkeypatch):
    """`full(10)`: databases that are opened from now on have at most so many pages."""
    connect = sqlite3.connect

    def limit(pages: int) -> None:
        def limited(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

        monkeypatch.setattr(sqlite3, "connect", limited)

    return limit


def test_a_disk_that_is_full_at_the_start_keeps_nothing(moa, full):
    full(8)
    result = moa("chat", "-c", "moa.toml", lines=["one", "/retry", "/cost"])
    assert result.exit_code == 0
    assert result.stdout == "1: agg: one\n2: agg: one\n"
    assert "are not kept in" in result.stderr
    assert "full" in result.stderr
    assert "goes on" not in result.stderr


@pytest.mark.parametrize("pages", [16, 24, 40])
def test_a_disk_that_becomes_full_ends_no_chat(moa, full, pages):
    full(pages)
    commands = ["/resume", "/retry", "/cost", "/proposals"]
    result = moa("chat", "-c", "moa.toml", lines=["x" * 40_000, "two", *commands])
    assert result.exit_code == 0, result.output
    assert "chats.sqlite cannot be used: database or disk is full" in result.stderr
    assert "`moa chat --store FILE`" in result.stderr


def test_a_question_that_cannot_be_kept_says_so(moa, full, tmp_path):
    (tmp_path / "down.toml").write_text(
        'proposers=["openai:a"]\naggregator="openai:agg?status=400"\ncalls={retries=0}'
    )
    full(16)
    result = moa("ask", "x" * 40_000, "-c", "down.toml", terminal=True)
    assert result.exit_code == 1
    assert "The proposals are not kept: database or disk is full." in plain(result.stderr)
    assert "--resume" not in result.stderr


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    path = tmp_path / "chats.sqlite"
    path.write_text("no database" * 99)
    assert opened(str(path)).path is None
    assert path.read_text() == "no database" * 99


def test_a_conversation_has_a_short_title_and_an_id_of_its_own():
    chats = [Chat.new().asked("a question\n of many words " * 9 + "\x1b", 1) for _ in range(9)]
    assert len({chat.id for chat in chats}) == 9
    assert all(cell_len(chat.title) <= 80 for chat in chats)
    assert chats[0].asked("another", 2).title == chats[0].title


def test_an_id_that_is_not_unique_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        chats = Chats(Path(folder) / "x.sqlite")
        for name in ("ab1", "ab2"):
            chats.save(Chat(name).asked(name, 1))
        assert chats.find("ab1").title == "ab1"
        with pytest.raises(ValueError, match="several conversations begin with 'ab'"):
            chats.find("ab")


# --- consoles ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="opens a terminal")
@pytest.mark.parametrize("term", ["dumb", "unknown", "xterm"])
@pytest.mark.parametrize(("columns", "width"), [(None, 47), ("33", 33), ("", 47)])
def test_every_terminal_has_its_own_width(monkeypatch, term, columns, width):
    import fcntl
    import struct
    import termios

    monkeypatch.setenv("TERM", term)
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "__stdout__", None)
    main, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 47, 0, 0))
    if term == "xterm":  # Rich asks the standard streams
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((47, 30)))
    with os.fdopen(main), os.fdopen(other, "w") as terminal:
        console = new_console(file=terminal)
        assert console.is_terminal
        assert console.is_dumb_terminal == (term != "xterm")
        assert console.width == width
        assert console.height == 30


def test_every_console_is_made_in_one_place():
    folder = Path(view.__file__).parent
    makes = re.compile(r"\bConsole\(")
    assert not [p.name for p in folder.glob("*.py") if makes.search(p.read_text())]
