"""Every strategy with every other: it works, or it is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import ChatMoA, Layer, References, create_moa
from moa_graph.strategies import (
    Agree,
    Analyse,
    ClusterAndFilter,
    Deduplicate,
    Diverse,
    DropoutAndCluster,
    DropoutAndVote,
    JudgedAgreement,
    MostCentral,
    PeerReview,
    Rank,
    Residual,
    Route,
    SelfMoASeq,
    Shuffle,
    Similar,
    Staircase,
    TopK,
    Tree,
    Unchanged,
    Vote,
)
from moa_graph.strategies.experimental import Chunkwise
from tests.mixtures import mixture_of

QUESTION = {"messages": "What is the capital of Australia?"}

Make = Callable[[Any], dict[str, Any]]

STRATEGIES: dict[str, Make] = {
    # the answer
    "Rank": lambda chat: {"aggregator": Rank(chat("judge"))},
    "Vote": lambda chat: {"aggregator": Vote()},
    "MostCentral": lambda chat: {"aggregator": MostCentral()},
    "Analyse": lambda chat: {"aggregator": Analyse(chat("agg?writes"))},
    "PeerReview": lambda chat: {"aggregator": PeerReview()},
    "PeerReview, written": lambda chat: {"aggregator": PeerReview(chat("agg?writes"), top=2)},
    "SelfMoASeq": lambda chat: {"aggregator": SelfMoASeq(chat("agg?writes"), window=2)},
    "DropoutAndVote": lambda chat: {"aggregator": DropoutAndVote(chat("agg?writes"), subsets=3)},
    "DropoutAndCluster": lambda chat: {"aggregator": DropoutAndCluster(chat("agg?writes"))},
    # what goes on
    "TopK": lambda chat: {"select": [TopK(2, judge=chat("judges"))]},
    "TopK by agreement": lambda chat: {"select": [TopK(3)]},
    "Diverse": lambda chat: {"select": [Diverse(3)]},
    "Deduplicate": lambda chat: {"select": [Deduplicate()]},
    "Shuffle": lambda chat: {"select": [Shuffle(letters=True)]},
    "Tree": lambda chat: {"select": [Tree(2)]},
    "ClusterAndFilter": lambda chat: {"select": [ClusterAndFilter(judge=chat("judges"))]},
    "Residual": lambda chat: {"select": [Residual()]},
    # when to stop
    "Agree": lambda chat: {"until": Agree()},
    "Agree, answer": lambda chat: {"until": Agree(then="answer")},
    "Similar": lambda chat: {"until": Similar()},
    "JudgedAgreement": lambda chat: {"until": JudgedAgreement(chat("says yes"))},
    "Unchanged": lambda chat: {"until": Unchanged()},
    # the rest
    "Route": lambda chat: {"route": Route(chat("cheap?unstable"), samples=2)},
    "Staircase": lambda chat: {"progressive": Staircase()},
    "Chunkwise": lambda chat: {"progressive": Chunkwise()},
    "fenced": lambda chat: {"fenced": True},
    "Quorum": lambda chat: {"quorum": 3, "grace": 5},
    "Hedge": lambda chat: {"hedge": 20},
    "cache": lambda chat: {"cache": InMemoryCache()},
    "checkpointer": lambda chat: {"checkpointer": InMemorySaver()},
    "three layers": lambda chat: {"layers": 3},
}
"""Each as arguments of `create_moa`."""

PIECEWISE = {"Staircase", "Chunkwise"}
ANSWERS = {"Rank", "Vote", "MostCentral", "Analyse", "SelfMoASeq"} | {
    "PeerReview",
    "PeerReview, written",
    "DropoutAndVote",
    "DropoutAndCluster",
}
SELECTIONS = {"TopK", "TopK by agreement", "Diverse", "Deduplicate", "Shuffle", "Tree"} | {
    "ClusterAndFilter",
    "Residual",
}
EXITS = {"Agree", "Agree, answer", "Similar", "JudgedAgreement", "Unchanged"}


def refusal(one: str, other: str) -> str | None:
    """Why the two are refused, as a part of the message; None if they go together."""
    pair = {one, other}
    if pair & PIECEWISE and pair & (ANSWERS | SELECTIONS | EXITS | {"Hedge"}):
        return "the next model reads them while they are written"
    if pair == {"Chunkwise", "cache"}:
        return "each chunk continues the aggregated text"
    if "Residual" in pair:
        if pair & {"Rank", "Vote", "MostCentral", "PeerReview"}:
            return "chosen among whole proposals"
        if pair & {"SelfMoASeq", "DropoutAndVote", "DropoutAndCluster", "Tree"}:
            return "refers to one reference in full"
    return None


def arguments(chat, *names: str) -> dict[str, Any]:
    given: dict[str, Any] = {"aggregator": chat("agg?writes"), "layers": 4}
    for name in names:
        for argument, value in STRATEGIES[name](chat).items():
            if argument == "select":
                given["select"] = [*given.get("select", []), *value]
            else:
                given[argument] = value
    # What rewrites references comes last.
    given.get("select", []).sort(key=lambda selection: selection.rewrites)
    return given


PAIRS = [
    pair
    for pair in combinations(STRATEGIES, 2)
    # Two values of one argument are no combination.
    if not any(set(pair) <= kind for kind in (ANSWERS, EXITS, PIECEWISE))
]


# By default each strategy stands in some pair; all of them are in the full table.
_SAMPLED = PAIRS[::9]
TABLE = [
    pytest.param(pair, id=" + ".join(pair), marks=[] if pair in _SAMPLED else [pytest.mark.full])
    for pair in PAIRS
]


def test_by_default_every_strategy_is_tried():
    assert {name for pair in _SAMPLED for name in pair} == set(STRATEGIES)


@pytest.mark.parametrize("pair", TABLE)
async def test_every_pair_works_or_is_refused_with_the_reason(chat, server, pair):
    server.answers |= {"judge": "2", "judges": "1, 3", "says yes": "yes"}
    server.answers |= {"cheap": "Perhaps Canberra", "agg": "Canberra, says the aggregator."}
    server.answers |= {f"p{i}": f"It is Canberra, says number {i}." for i in range(5)}
    given = arguments(chat, *pair)
    proposers = [chat(f"p{i}?writes") for i in range(5)]
    if reason := refusal(*pair):
        with pytest.raises(ValueError, match=reason):
            mixture_of(proposers, **given)
        return
    graph = mixture_of(proposers, **given)
    thread = {"configurable": {"thread_id": "1"}}
    shown = ""
    async for mode, event in graph.astream(QUESTION, thread, stream_mode=["messages", "values"]):
        if mode == "values":
            state = event
        else:
            shown += event[0].text
    answer = state["messages"][-1]
    assert answer.type == "ai"
    assert "Canberra" in answer.text
    assert shown == answer.text
    assert not any(p["error"] for p in state["proposals"])
    assert not any(d["error"] for d in state.get("decisions", ()))
    model = ChatMoA(graph=graph)
    streamed = "".join([chunk.text async for chunk in model.astream("Which?")])
    assert "Canberra" in streamed
    assert graph.get_graph().draw_mermaid()


async def test_without_threads_too(chat, server):
    """The same in a synchronous run, for one of each kind."""
    server.answers |= {"judge": "2", "agg": "Canberra."}
    server.answers |= {f"p{i}": f"It is Canberra, says number {i}." for i in range(5)}
    names = ("Rank", "TopK by agreement", "Agree", "Route", "fenced")
    graph = mixture_of([chat(f"p{i}") for i in range(5)], **arguments(chat, *names))
    assert "Canberra" in graph.invoke(QUESTION)["messages"][-1].text
    assert "Canberra" in ChatMoA(graph=graph).invoke("Which?").text


def test_a_fence_that_nobody_would_read_is_refused(chat):
    with pytest.raises(ValueError, match=r"fenced=True\) and Vote.*only a judge\s+is shown"):
        create_moa([chat("a"), chat("b")], Vote(), references=References(fenced=True))


def test_two_trees_and_two_residuals_are_refused(chat):
    four = [chat(name) for name in "abcd"]
    with pytest.raises(ValueError, match="more than one Tree"):
        create_moa(Layer(four, select=[Tree(2), Tree(3)]), chat("agg"), layers=3)
    with pytest.raises(ValueError, match="Residual rewrites the references"):
        create_moa(Layer(four, select=[Residual(), TopK(2)]), chat("agg"), layers=3)
