from __future__ import annotations

import numpy as np
import pytest

from moa_graph.calling.sync import run
from moa_graph.evals.pools.answers import answers_of
from moa_graph.evals.pools.choosing import by_vote, central, vote_weight
from moa_graph.evals.recorded import RecordedProposals
from moa_graph.evals.verifiable import RecordedAnswer, RecordedModel, RecordedSet
from moa_graph.graph import create_moa
from moa_graph.layers import Proposer
from moa_graph.strategies.rank import MostCentral
from moa_graph.strategies.vote import Vote

WORDS = ["red apples", "green pears", "red pears", "", "blue plums and red apples", "apples"]
WEIGHTS = (3.0, 1.5, 1.5, 1.0)


@pytest.fixture(scope="module")
def recorded():
    """Random answers of four models, some of them blank."""
    rng = np.random.default_rng(4)
    questions = {str(i): f"Which fruit is in basket {i}?" for i in range(120)}
    models = {}
    for name in "abcd":
        answers = {}
        for key in questions:
            text = WORDS[rng.integers(len(WORDS))]
            answers[key] = RecordedAnswer(text, text or None, bool(text) and rng.random() < 0.5)
        models[name] = RecordedModel(name, answers, None, ())
    return RecordedSet("fruit", questions, str, models)


@pytest.mark.parametrize("members", [(0, 1), (1, 0), (2, 0, 3), (0, 1, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize("kind", ["vote", "weighted", "central"])
def test_choices_are_those_of_the_strategies_in_a_graph(recorded, members, kind):
    answers = answers_of(recorded, list("abcd"), quiet=True)
    names = ["abcd"[i] for i in members]
    weights = WEIGHTS[: len(members)]
    strategy = {
        "vote": Vote(parse=str),
        "weighted": Vote(parse=str, weights=dict(zip(names, weights, strict=True))),
        "central": MostCentral(),
    }[kind]
    mine = (
        central(answers, members)
        if kind == "central"
        else by_vote(answers, members, weights if kind == "weighted" else None)
    )
    proposals = [
        Proposer(
            RecordedProposals(
                name,
                {
                    (text,): recorded.models[name].answers[key].reply
                    for key, text in recorded.questions.items()
                },
            ),
            name=name,
        )
        for name in names
    ]
    graph = create_moa(proposals, strategy)

    async def chosen(key):
        try:
            state = await graph.ainvoke({"messages": recorded.questions[key]})
        except Exception:
            return False
        place = state["messages"][-1].response_metadata["chosen_proposal"]["proposer"]
        return recorded.models[place].answers[key].correct

    async def all_of_them():
        return [await chosen(key) for key in recorded.questions]

    assert mine.tolist() == run(all_of_them())


def test_weight_of_a_vote_grows_with_accuracy_and_is_never_zero():
    weights = [vote_weight([1] * right + [0] * (100 - right)) for right in (0, 30, 60, 90, 100)]
    assert weights == sorted(weights)
    assert weights[0] == 0.01
