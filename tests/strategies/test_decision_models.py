"""LangChain's decision models in the place of a judge."""

from __future__ import annotations

from typing import Any

import pytest

from moa_graph import Layer, create_moa
from moa_graph.strategies import (
    ClusterAndFilter,
    JudgedAgreement,
    Rank,
    Route,
    TopK,
    Vote,
)

decisions = pytest.importorskip("langchain_core.decisions")
USAGE = {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}


class Decider(decisions.BaseDecisionModel):
    """Gives the probabilities that it was made with."""

    model: str = "decider-1"
    yes: float = 0.9
    probable: list[float] = [0.1, 0.7, 0.2]
    fails: int = 0
    seen: list[Any] = []

    @property
    def _provider(self) -> str:
        return "tests"

    def _classify(self, state: Any, questions: Any) -> Any:
        self.seen.append((state, questions))
        if len(self.seen) <= self.fails:
            raise ConnectionError("not yet")
        answers: dict[str, Any] = {}
        for number, (name, question) in enumerate(questions.items()):
            if question.type == "noul":
                yes = self.probable[number] if len(questions) > 1 else self.yes
                answers[name] = {"type": "noul", "noul": yes}
            else:
                labels = list(question.criteria)
                by_label = dict(zip(labels, self.probable, strict=False))
                best = max(by_label, key=lambda label: by_label[label])
                answers[name] = {
                    "type": "choice", "choice": best, "probabilities": by_label,
                    "confidence": by_label[best],
                }  # fmt: skip
        return decisions.ClassifierResponse(model="decider-1a", answers=answers, usage=USAGE)


def three(chat) -> list[Any]:
    return [chat("a"), chat("b"), chat("c")]


modes = pytest.mark.parametrize("mode", ["sync", "async"])


async def answer(moa: Any, mode: str) -> dict[str, Any]:
    given = {"messages": "What is it?"}
    return moa.invoke(given) if mode == "sync" else await moa.ainvoke(given)


@modes
@pytest.mark.parametrize("wrap", ["plain", "config", "retry"])
async def test_rank(chat, mode, wrap):
    decider: Any = Decider(seen=[], fails=1 if wrap == "retry" else 0)
    model = {
        "plain": decider,
        "config": decider.with_config(tags=["x"]),
        "retry": decider.with_retry(stop_after_attempt=2),
    }[wrap]
    state = await answer(create_moa(three(chat), Rank(judge=model)), mode)
    assert state["messages"][-1].text == "b: What is it?"
    (decision,) = state["decisions"]
    assert decision["by"] == "judge"
    assert decision["usage"]["input_tokens"] == 7
    case, questions = decider.seen[-1]
    assert "What is it?" in str(case)
    assert list(questions["verdict"].criteria) == ["1", "2", "3"]


@modes
async def test_top_k_takes_the_most_probable(chat, server, mode):
    layer = Layer(three(chat), select=[TopK(2, judge=Decider(seen=[]))])
    state = await answer(create_moa(layer, chat("agg")), mode)
    assert state["decisions"][0]["kept"] == ["b", "c"]
    assert "a: What" not in server.of("agg")[0].system


@modes
@pytest.mark.parametrize(("yes", "calls"), [(0.9, 3), (0.5, 6), (0.1, 6)])
async def test_agreement(chat, server, mode, yes, calls):
    layer = Layer(three(chat), until=JudgedAgreement(Decider(seen=[], yes=yes)))
    await answer(create_moa(layer, chat("agg"), layers=3), mode)
    assert len(server.calls) == calls + 1


@modes
@pytest.mark.parametrize(("yes", "alone"), [(0.9, True), (0.2, False)])
async def test_route(chat, server, mode, yes, alone):
    route = Route(chat("first"), judge=Decider(seen=[], yes=yes))
    await answer(create_moa(three(chat), chat("agg"), route=route), mode)
    assert (len(server.calls) == 1) is alone


@modes
async def test_ties_and_contradictions(chat, mode):
    tie = Vote(tie=Decider(seen=[]))
    assert (await answer(create_moa(three(chat), tie), mode))["messages"][-1].text.startswith("b:")
    odd = Decider(seen=[], probable=[0.1, 0.1, 0.9])
    layer = Layer(three(chat), select=[ClusterAndFilter(judge=odd)])
    state = await answer(create_moa(layer, chat("agg")), mode)
    assert list(state["decisions"][0]["left_out"]) == ["c"]


async def test_a_failure_is_recorded(chat):
    moa = create_moa(three(chat), Rank(judge=Decider(seen=[], fails=99)), calls={"retries": 0})
    state = await moa.ainvoke({"messages": "What is it?"})
    assert "The judge decider-1 failed: " in state["decisions"][0]["error"]
    assert "not yet" in state["decisions"][0]["error"]


@pytest.mark.parametrize("place", ["proposers", "aggregator"])
def test_it_is_refused_where_text_is_wanted(chat, place):
    given = [chat("a"), Decider()] if place == "proposers" else [chat("a")]
    aggregator = Decider() if place == "aggregator" else chat("agg")
    with pytest.raises(TypeError, match="is a decision model, which writes no text"):
        create_moa(given, aggregator)
