"""Pieces of a text join to the text, wherever they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langchain_together import ChatTogether

from moa_graph.calling.answer import was_cut
from moa_graph.progressive.continuation import CONTINUE, TextJoiner, continuation_of, with_own_text

TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet=" \n\tab", max_size=200),
    st.builds(lambda part, n: part * n, st.text(min_size=1, max_size=12), st.integers(1, 40)),
)


def written(text: str, how: str, sizes: list[int], stream: int) -> str:
    """What comes of a text whose model goes on at the very next character, cut to these sizes."""
    so_far = ""
    longer = 1
    for number in range(10_000):
        size = sizes[number % len(sizes)] * longer
        joiner = TextJoiner(so_far, how)
        piece = text[len(so_far) : len(so_far) + size]
        shown = "".join(joiner.add(piece[i : i + stream]) for i in range(0, len(piece), stream))
        cut = len(so_far) + size < len(text)
        shown += joiner.end("cut" if cut else "end")
        assert shown == joiner.taken
        assert shown or joiner.only_spaces or not cut or how == "instruction"
        so_far += shown
        if not cut:
            return so_far
        if not shown:  # nothing but spaces: it is asked for more
            longer *= 2
    raise AssertionError("it never ends")


@pytest.mark.parametrize("how", ["prefix", "instruction"])
@given(
    text=TEXTS, sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), stream=st.integers(1, 9)
)
def test_no_character_is_lost_or_doubled(how, text, sizes, stream):
    assert written(text, how, sizes, stream) == text


REPEATS = "The cat sat on the mat, and looked at the moon. Then it"


@pytest.mark.parametrize("start", [0, 20, len(REPEATS) - 20])
def test_what_a_model_repeats_before_it_goes_on_is_left_out(start):
    joiner = TextJoiner(REPEATS, "instruction")
    reply = REPEATS[start:] + " went home, and slept."
    shown = "".join(joiner.add(character) for character in reply) + joiner.end("end")
    assert REPEATS + shown == REPEATS + " went home, and slept."


def test_a_prefix_feature_is_trusted():
    joiner = TextJoiner(REPEATS, "prefix")
    assert joiner.add(REPEATS) + joiner.end("end") == REPEATS


@pytest.mark.parametrize("how", ["prefix", "instruction"])
def test_a_model_that_ended_and_says_it_all_again_has_nothing_to_add(how):
    text = "A cat is an animal."
    for more in ("", " It purrs."):
        joiner = TextJoiner(text, how, closed=True)
        shown = "".join(joiner.add(character) for character in text + more) + joiner.end("end")
        assert shown == more
    joiner = TextJoiner(text, how, closed=True)
    assert joiner.add(" A cat purrs.") + joiner.end("end") == " A cat purrs."


def test_the_own_text_comes_last():
    asked = [HumanMessage("What?")]
    assert with_own_text(asked, "", "prefix") == asked
    assert [m.type for m in with_own_text(asked, "So", "prefix")] == ["human", "ai"]
    told = with_own_text(asked, "So", "instruction")
    assert [m.type for m in told] == ["human", "ai", "human"]
    assert told[-1].content == CONTINUE


def test_how_a_model_goes_on_depends_on_where_it_is_served(chat):
    assert continuation_of(chat("a")) == "prefix"
    assert continuation_of(chat("a").with_retry()) == "prefix"
    assert continuation_of(ChatOpenAI(model="gpt-5.2", api_key="k")) == "instruction"
    assert continuation_of(ChatTogether(model="m", api_key="k")) == "instruction"
    assert continuation_of(RunnableLambda(lambda _: "hi")) == "instruction"


@pytest.mark.parametrize(
    ("metadata", "cut"),
    [
        ({"finish_reason": "length"}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"finish_reason": "stop"}, False),
        ({"done_reason": "length"}, True),
        ({}, None),
    ],
)
def test_whether_an_answer_was_cut(metadata, cut):
    assert was_cut(metadata) is cut
