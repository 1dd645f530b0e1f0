"""Parts of references and pieces of an answer as turns: exact, alternating, growing at the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, SystemMessage

from moa_graph.progressive.continuation import CONTINUE
from moa_graph.progressive.turns import laid_out, start_of_last_sentence

ASKED = [SystemMessage("Be brief."), HumanMessage("What is a cat?")]
WORDS = st.text(alphabet="ab. \n。", max_size=30)
PIECES = st.one_of(
    WORDS,
    st.text(max_size=400),
    st.builds(lambda word, n: word * n, st.text(min_size=1, max_size=9), st.integers(20, 60)),
)
CALLS = st.lists(st.tuples(st.sampled_from(["", "1. A cat", "1. is\n2. an animal"]), PIECES))


def as_text(messages) -> str:
    """The prompt without an end, because a prefix is continued there."""
    return "\n".join(f"{m.type}: {m.content}" for m in messages)


@pytest.mark.parametrize("how", ["prefix", "instruction"])
@given(first=PIECES, calls=CALLS)
def test_turns_alternate_and_are_the_text(how, first, calls):
    calls = [("1. A", f"So {first.strip()}"), *calls]
    for number in range(len(calls) + 1):
        pieces = [piece for _, piece in calls[:number]]
        prompt = laid_out(ASKED, [*calls[:number], ("2. B", "")], how)
        assert "".join(m.content for m in prompt if m.type == "ai") == "".join(pieces)
        types = [m.type for m in prompt[1:]]
        assert types[0] == "human"
        assert all(a != b for a, b in pairwise(types))
        assert types[-1] == ("ai" if pieces and how == "prefix" else "human")
        assert all(m.content.strip() for m in prompt)
        assert how == "prefix" or (CONTINUE in prompt[-1].content) == bool(pieces)


@pytest.mark.parametrize("how", ["prefix", "instruction"])
@given(calls=CALLS)
def test_what_was_sent_is_sent_again_as_a_prefix(how, calls):
    calls = [("1. A", "So it is"), *((part, f"{piece}.") for part, piece in calls), ("2. B", "")]
    sent = [
        as_text(laid_out(ASKED, [*calls[:i], (calls[i][0], "")], how)) for i in range(len(calls))
    ]
    for before, after in pairwise(sent):
        assert after.startswith(before)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("A cat", "A cat"),
        ("A cat.", "A cat."),
        ("A cat. It purrs", "It purrs"),
        ("A cat. It purrs.", "It purrs."),
        ("A cat! (It purrs.) Then", "Then"),
        ("- a cat\n  - purrs", "- purrs"),
        ("猫。鳴く。", "鳴く。"),
        ("Tip 1: purr", "Tip 1: purr"),
        ("Version 1.5 is", "Version 1.5 is"),
        ("w " * 200 + "end", "w " * 98 + "end"),
        ("字" * 500, "字" * 200),
    ],
)
def test_the_last_sentence_or_line_goes_behind_the_new_part(text, last):
    assert text[start_of_last_sentence(text) :] == last


def test_a_model_without_a_prefix_feature_is_told_where_its_text_stops():
    calls = [("1. A", "A cat is. It purrs "), ("2. B", "")]
    last = laid_out(ASKED, calls, "instruction")[-1].content
    assert last.startswith("2. B\n\n" + CONTINUE)
    assert last.endswith("stops after these words:\nIt purrs")
    assert laid_out(ASKED, [*calls[:1], ("", "")], "instruction")[-1].content == CONTINUE
