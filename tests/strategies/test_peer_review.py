"""Proposers that score each other's answers."""

from __future__ import annotations

import random

import pytest
from langchain_core.messages import HumanMessage, ToolMessage

from moa_graph import ChatMoA, Layer, NotEnoughProposals, create_moa
from moa_graph.strategies import Agree, PeerReview, TopK
from moa_graph.strategies.peer_review import scores_in, unbiased
from tests.nodes.test_nodes import MODES, run

QUESTION = {"messages": "What is the capital of Australia?"}


def reviewing(**scores):
    """Answers of models that answer the question, and score when they are asked to."""

    def of(name):
        def answer(call):
            if "Score each response" in call.system:
                return scores[name] if isinstance(scores[name], str) else scores[name](call)
            return f"{name}'s answer"

        return answer

    return {name: of(name) for name in scores}


def decision(state, step):
    return next(d for d in state["decisions"] if d["step"] == step)


@pytest.mark.parametrize("mode", MODES)
async def test_the_highest_scored_answer_is_given_word_for_word(chat, server, mode):
    # a sees b, c; b sees c, a; c sees a, b.
    server.answers |= reviewing(a="3, 9", b="8, 2", c="2, 3")
    graph = create_moa([chat(n) for n in "abc"], PeerReview())
    state = await run(graph, mode, QUESTION)
    assert state["messages"][-1].text == "c's answer"
    assert state["messages"][-1].response_metadata["chosen_proposal"] == {
        "proposer": "c",
        "layer": 1,
    }
    found = decision(state, "peer_review")
    assert (found["by"], found["kept"], found["attempts"]) == ("peers", ["c"], 3)
    assert list(found["scores"]) == ["c", "b", "a"]
    assert found["error"] is None
    assert found["left_out"]["a"].startswith("score ")


async def test_nobody_sees_its_own_answer_or_a_name(chat, server):
    server.answers |= reviewing(a="5, 5", b="5, 5", c="5, 5")
    await create_moa([chat(n) for n in "abc"], PeerReview()).ainvoke(QUESTION)
    for name in "abc":
        review = server.of(name)[1]
        text = review.system + review.messages[-1]["content"]
        assert f"{name}'s answer" not in text
        others = set("abc") - {name}
        assert all(f"{other}'s answer" in text for other in others)
        assert "proposer" not in text


async def test_the_writer_sees_the_best(chat, server):
    server.answers |= reviewing(a="3, 9, 8", b="8, 9, 2", c="9, 2, 3", d="2, 3, 8")
    graph = create_moa([chat(n) for n in "abcd"], PeerReview(chat("agg"), top=2))
    state = await graph.ainvoke(QUESTION)
    system = server.of("agg")[0].system
    assert ("c's answer" in system, "d's answer" in system) == (True, True)
    assert ("a's answer" in system, "b's answer" in system) == (False, False)
    assert decision(state, "peer_review")["kept"] == ["d", "c"]
    assert len(server.of("agg")) == 1
    assert {n.name for n in graph.get_graph().nodes.values()} >= {"peer_review", "aggregator"}


def test_a_severe_and_a_kind_reviewer_have_equal_influence():
    merit = [3.0, 5.0, 8.0, 6.0]
    severity = [-2.0, 0.0, 1.0, 1.0]
    scores = {r: {p: merit[p] + severity[r] for p in range(4) if p != r} for r in range(4)}
    assert unbiased(scores, 4) == pytest.approx(merit, abs=1e-6)
    raw = [sum(scores[r][p] for r in range(4) if r != p) / 3 for p in range(4)]
    assert raw != pytest.approx(merit, abs=0.2)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_severity_never_changes_the_order(n):
    rng = random.Random(n)
    for _ in range(30):
        merit = [rng.uniform(3, 8) for _ in range(n)]
        severity = [rng.uniform(-2, 2) for _ in range(n)]
        scores = {r: {p: merit[p] + severity[r] for p in range(n) if p != r} for r in range(n)}
        found = unbiased(scores, n)
        order = sorted(range(n), key=lambda i: merit[i])
        assert sorted(range(n), key=lambda i: found[i]) == order


def test_two_proposers_score_one_answer_each():
    assert unbiased({0: {1: 9.0}, 1: {0: 4.0}}, 2) == [4.0, 9.0]
    assert unbiased({}, 2) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "count", "scores"),
    [
        ("7, 9", 2, [7, 9]),
        ("7.5, 9", 2, [7.5, 9]),
        ("7/10, 9/10", 2, [7, 9]),
        ("I think of 3 things.\n7, 9\n", 2, [7, 9]),
        ("Scores: 10, 1, 1", 3, [10, 1, 1]),
        ("Response 1: 9\nResponse 2: 3", 2, [9, 3]),
        ("2. 3\n1. 9", 2, [9, 3]),
        ("1) 9/10\n2) 3/10", 2, [9, 3]),
        ("**Scores:** [9, 3]", 2, [9, 3]),
        ("9 3", 2, [9, 3]),
        ("8 out of 10", 1, [8]),
        ("8", 1, [8]),
        ("9, 3\nResponse 1 scores 6 higher", 2, [9, 3]),
        ("Response 1: 9\nResponse 1: 3", 2, None),
        ("Response 1: 9", 2, None),
        ("3-9", 2, None),
        ("-5", 1, None),
        ("7", 2, None),
        ("7, 9, 3", 2, None),
        ("0, 9", 2, None),
        ("11, 9", 2, None),
        ("good, bad", 2, None),
        ("", 1, None),
    ],
)
def test_scores_are_read(text, count, scores):
    assert scores_in(text, count) == scores


async def test_a_review_that_fails_is_recorded_and_the_others_decide(chat, server):
    server.answers |= reviewing(a="no idea", b="8, 2", c="2, 3")
    state = await create_moa([chat(n) for n in "abc"], PeerReview()).ainvoke(QUESTION)
    found = decision(state, "peer_review")
    assert "The judge a gave no verdict in 2 attempts: 'no idea'" in found["error"]
    assert found["by"] == "peers"
    assert state["messages"][-1].text == "c's answer"


async def test_if_all_reviews_fail_all_are_shown_or_the_most_central_is_given(chat, server):
    server.answers |= reviewing(a="?", b="?", c="?")
    graph = create_moa([chat(n) for n in "abc"], PeerReview(chat("agg"), top=1))
    state = await graph.ainvoke(QUESTION)
    assert all(f"{n}'s answer" in server.of("agg")[0].system for n in "abc")
    assert decision(state, "peer_review")["outcome"] == "failed"
    state = await create_moa([chat(n) for n in "abc"], PeerReview()).ainvoke(QUESTION)
    assert decision(state, "aggregator")["by"] == "agreement"


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_an_answer_that_nobody_scored_does_not_lose(chat, server, failing):
    server.answers |= reviewing(a="1", b="1") | reviewing(**{failing: "?"})
    state = await create_moa([chat("a"), chat("b")], PeerReview()).ainvoke(QUESTION)
    found = decision(state, "peer_review")
    assert (found["outcome"], found["left_out"]) == ("failed", {})
    assert "scores" not in found
    assert decision(state, "aggregator")["by"] == "agreement"


async def test_a_single_proposal_is_not_reviewed(chat, server):
    state = await create_moa([chat("a"), chat("b?status=400")], PeerReview()).ainvoke(QUESTION)
    assert state["messages"][-1].text.startswith("a: ")
    assert len(server.of("a")) == 1
    with pytest.raises(NotEnoughProposals):
        await create_moa([chat("b?status=400")], PeerReview()).ainvoke(QUESTION)


async def test_the_reserve_reviews_and_the_failed_does_not(chat, server):
    server.answers |= reviewing(a="3, 9", b="9, 2", r="3, 4")
    layer = Layer([chat("a"), chat("b"), chat("c?status=400")], reserve=[chat("r")])
    state = await create_moa(layer, PeerReview()).ainvoke(QUESTION)
    assert state["messages"][-1].text == "r's answer"
    assert decision(state, "peer_review")["attempts"] == 3
    assert (len(server.of("r")), len(server.of("c"))) == (2, 1)


async def test_it_reviews_the_layer_that_an_early_exit_leaves(chat, server):
    server.answers |= reviewing(a="9, 3", b="2, 9", c="9, 4")
    layer = Layer([chat(n) for n in "abc"], until=Agree(0.1), select=TopK(2))
    state = await create_moa(layer, PeerReview(), layers=4).ainvoke(QUESTION)
    assert decision(state, "peer_review")["layer"] >= 1
    assert state["messages"][-1].text.endswith("'s answer")


async def test_tokens_of_reviews_are_counted(chat, server):
    server.answers |= reviewing(a="9, 3", b="2, 9", c="9, 4")
    state = await create_moa([chat(n) for n in "abc"], PeerReview()).ainvoke(QUESTION)
    usage = decision(state, "peer_review")["usage"]
    assert usage["input_tokens"] == sum(server.of(n)[1].usage["prompt_tokens"] for n in "abc")


async def test_an_agent_sees_the_best_at_every_step(chat, server):
    server.answers |= reviewing(a="3, 9", b="8, 2", c="2, 3")
    model = ChatMoA(
        graph=create_moa([chat(n) for n in "abc"], PeerReview(chat("agg?steps=1"), top=1))
    )
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    first = await model.bind_tools(tools).ainvoke([HumanMessage("Which capital?", id="1")])
    result = ToolMessage("Canberra", tool_call_id=first.tool_calls[0]["id"])
    await model.bind_tools(tools).ainvoke([HumanMessage("Which capital?", id="1"), first, result])
    for call in server.of("agg"):
        text = str(call.messages)
        assert "c's answer" in text
        assert "a's answer" not in text
    assert len(server.of("a")) == 2


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"top": 2}, ValueError, "give PeerReview\\(writer, top=…\\)"),
        ({"writer": 7}, TypeError, "PeerReview\\(writer=…\\)"),
        ({"writer": "openai:x", "top": 0}, ValueError, "at least 1"),
        ({"writer": "openai:x", "top": 1.5}, TypeError, "must be an integer"),
        ({"writer": "openai:x", "embeddings": "openai:e"}, ValueError, "not both"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, kind, said):
    with pytest.raises(kind, match=said):
        PeerReview(**arguments)
