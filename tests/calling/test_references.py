from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from moa_graph import AggregationFailed, References, create_moa
from moa_graph.calling.references import (
    Question,
    estimated_prompt,
    estimated_tokens,
    fair_shares,
    trimmed,
)
from moa_graph.prompts import format_references
from tests.nodes.test_nodes import run

QUESTION = {"messages": "What is a cat?"}


@given(st.lists(st.integers(0, 10_000), max_size=8), st.integers(-5, 30_000))
def test_shares_are_fair_and_fit(sizes, room):
    shares = fair_shares(sizes, room)
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    assert sum(shares) <= max(0, room)
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    if cut:
        assert max(cut) - min(cut) <= 1
        assert max(shares) - max(cut) <= 1  # a token cannot be divided
        assert sum(shares) > room - len(sizes) or room < 0
    else:
        assert shares == sizes


@given(st.text(min_size=0, max_size=3000), st.integers(0, 800))
def test_trimmed_text_fits_and_is_made_of_the_text(text, tokens):
    result = trimmed(text, tokens)
    assert estimated_tokens(result) <= max(tokens, 0) or result == text
    if estimated_tokens(text) <= tokens:
        assert result == text
    result.encode()


def test_trimmed_text_keeps_the_beginning_and_the_end():
    text = "beginning " + "x" * 10_000 + " end"
    result = trimmed(text, 100)
    assert result.startswith("beginning ")
    assert result.endswith(" end")
    assert "trimmed" in result


@pytest.mark.parametrize(
    "text", ["word " * 50, "的" * 50, "def f(x):\n    return x\n" * 9, "é" * 90]
)
def test_estimates_are_rather_too_high(text):
    # Four characters a token is what English needs; a CJK character needs one or two.
    assert estimated_tokens(text) >= len(text) / 4


# --- in a run --------------------------------------------------------------------------------

MODES = ["invoke", "ainvoke", "stream", "astream"]
LONG = 200_000


def record(state):
    return state["messages"][-1].response_metadata["trimmed_references"]


@pytest.mark.parametrize("mode", MODES)
async def test_references_are_trimmed_to_the_window_of_the_models_profile(chat, server, mode):
    """Six answers of 200,000 characters, and a window of 8,192 tokens."""
    models = [chat(f"p{i}?size={LONG}") for i in range(6)]
    small = chat("agg?window=8192", profile={"max_input_tokens": 8192})
    state = await run(create_moa(models, small), mode, QUESTION)
    assert state["messages"][-1].text == "agg: What is a cat?"
    assert [len(p["content"]) for p in state["proposals"]] == [LONG] * 6
    assert len(server.of("agg")) == 1
    assert [t["proposer"] for t in record(state)] == [p["proposer"] for p in state["proposals"]]
    kept = [t["kept"] for t in record(state)]
    assert max(kept) - min(kept) <= 3
    assert 4_000 < sum(kept) < 8192
    assert all(t["tokens"] > 60_000 for t in record(state))
    system = server.of("agg")[0].system
    assert all(f"{i}. p{i - 1}: What is a cat?" in system for i in range(1, 7))


@pytest.mark.parametrize("mode", MODES)
async def test_a_window_that_nobody_knows_is_found_by_asking(chat, server, mode):
    models = [chat(f"p{i}?size={LONG}") for i in range(6)]
    state = await run(create_moa(models, chat("agg?window=8192")), mode, QUESTION)
    assert state["messages"][-1].text == "agg: What is a cat?"
    assert len(record(state)) == 6
    assert 1 < len(server.of("agg")) < 6
    assert len([c for c in server.calls if c.label != "agg"]) == 6


async def test_the_graph_may_say_the_window(chat, server):
    models = [chat(f"p{i}?size=30000") for i in range(3)]
    graph = create_moa(
        models, chat("agg?window=4000"), layers=3, references=References(window=4000)
    )
    state = await graph.ainvoke(QUESTION)
    assert len(server.of("agg")) == 1
    second = [p for p in state["proposals"] if p["layer"] == 2]
    assert all(len(p["trimmed"]) == 3 for p in second)
    assert all("trimmed" not in p for p in state["proposals"] if p["layer"] == 1)


async def test_what_fits_is_not_touched(chat, server):
    graph = create_moa(
        [chat("a"), chat("b?size=30000")], chat("agg"), references=References(window=9000)
    )
    state = await graph.ainvoke(QUESTION)
    assert [t["proposer"] for t in record(state)] == ["b?size=30000"]
    assert "\n1. a: What is a cat?\n" in server.of("agg")[0].system

    server.reset()
    graph = create_moa([chat("a"), chat("b")], chat("agg"), references=References(window=9000))
    state = await graph.ainvoke(QUESTION)
    assert "trimmed_references" not in state["messages"][-1].response_metadata
    assert server.of("agg")[0].system == format_references(
        ["a: What is a cat?", "b: What is a cat?"]
    )


async def test_a_conversation_that_is_too_long_by_itself_fails_for_that(chat, server):
    graph = create_moa([chat("a")], chat("agg?window=100"), references=References(window=100))
    with pytest.raises(AggregationFailed, match="context length"):
        await graph.ainvoke({"messages": "word " * 2000})


def test_shortening_ends():
    reference = {"proposer": "a", "content": "x" * 1_000_000}
    question = Question([HumanMessage("hi")], [reference], "Do:")
    sizes = [estimated_prompt(question.messages)]
    while question.shorten():
        sizes.append(estimated_prompt(question.messages))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 150
    assert len(sizes) < 12


@pytest.mark.parametrize("words", [0, 5, 20_000])
async def test_the_writer_sees_reasoning_where_there_is_some_and_not_without_end(
    chat, server, words
):
    thought = " ".join(f"step-{i}" for i in range(words))
    server.answers["a"] = f"<think>{thought}</think>It is 42." if words else "It is 42."
    moa = create_moa([chat("a")], chat("agg"), references=References(reasoning=True))
    await moa.ainvoke({"messages": "What is it?"})
    system = server.of("agg")[0].system
    assert "It is 42." in system
    assert ("Reasoning:\nstep-0" in system) is bool(words)
    assert (f"step-{words - 1}" in system) is bool(words)  # how it ends is kept, too
    assert estimated_tokens(system) < 3000
