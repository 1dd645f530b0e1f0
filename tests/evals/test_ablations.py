from __future__ import annotations

import pytest

from moa_graph.building.parts import as_answer
from moa_graph.evals.ablations import configurations
from moa_graph.evals.files import EvalError
from moa_graph.strategies import Rank

MODELS = ["together:x/a", "together:b", "together:c", "together:d"]


def by_name(studies):
    return {c.name: c for c in configurations(MODELS, None, studies)}


def test_number_and_kind_of_proposers():
    found = by_name(["proposers"])
    assert set(found) == {
        "4 different",
        *(f"{n} different" for n in (1, 2, 3)),
        *(f"{n} of one model" for n in (1, 2, 3, 6)),
    }
    assert found["2 different"].proposers == MODELS[:2]
    assert found["6 of one model"].proposers[0]["samples"] == 6
    assert {c.aggregator for c in found.values()} == {MODELS[0]}


def test_layers_roles_and_ranker():
    assert [c.layers for c in by_name(["layers"]).values()] == [2, 3, 4]
    roles = by_name(["roles"])
    assert roles["b aggregates"].aggregator == "together:b"
    assert roles["b proposes"].proposers[0]["samples"] == 4
    assert "a aggregates" not in roles  # that is the plain one
    ranked = by_name(["ranker"])["4 different, ranked"]
    assert ranked.aggregator["strategy"] == "rank"
    assert isinstance(as_answer(ranked.aggregator), Rank)


def test_all_studies_have_the_plain_mixture_first_and_each_name_once():
    found = configurations(MODELS, "together:agg", temperature=0.5)
    names = [c.name for c in found]
    assert names[0] == "4 different"
    assert len(names) == len(set(names)) == 19
    assert all(c.temperature == 0.5 for c in found)


def test_wrong_ablations_are_refused():
    with pytest.raises(EvalError, match="two or more models"):
        configurations(MODELS[:1])
    with pytest.raises(EvalError, match="Did you mean 'layers'"):
        configurations(MODELS, None, ["layer"])
