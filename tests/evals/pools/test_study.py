from __future__ import annotations

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest

from moa_graph.evals.files import EvalError
from moa_graph.evals.pools.answers import answers_of
from moa_graph.evals.pools.report import figure, missing, report
from moa_graph.evals.pools.selection import best_model, choices, choose, pools, results
from moa_graph.evals.pools.study import study
from moa_graph.evals.verifiable import read_set


def test_models_that_err_differently_are_mixed(simulated):
    found = study(simulated([0.75, 0.75, 0.75, 0.75, 0.75]))
    told = found["recommendation"]
    assert told["mix"]
    assert len(told["members"]) == 5
    assert told["tokens"] == pytest.approx(5)
    assert 0.05 < told["gain"]["low"] < told["gain"]["value"]
    assert told["sentence"].startswith("Mix these five by ")
    assert "for 5.0 times its tokens" in told["sentence"]


def test_one_strong_model_is_not_mixed_with_weak_ones(simulated):
    told = study(simulated([0.95, 0.4, 0.4, 0.3]))["recommendation"]
    assert not told["mix"]
    assert told["best"] == "a"
    assert told["sentence"].startswith("Do not mix: a gain over a on other questions is not")
    assert told["expected"]["low"] >= told["gain"]["low"]


def test_models_that_err_together_are_not_mixed_and_the_ceiling_says_why(simulated):
    told = study(simulated([0.8, 0.8, 0.8], alike=(0, 1, 2)))["recommendation"]
    assert not told["mix"]
    assert "no pool can exceed" in told["sentence"]


def test_a_ceiling_near_the_best_model_is_the_reason(simulated):
    answers = simulated([0.9, 0.9], n=5000, alike=(0, 1))
    told = study(answers)["recommendation"]
    assert told["sentence"].startswith("Do not mix: no pool can exceed 9")
    assert "the best model alone, a, has" in told["sentence"]


def test_ceiling_is_the_share_of_questions_that_some_member_answers_right(simulated):
    answers = simulated([0.7, 0.6, 0.5])
    for row in study(answers)["pools"]:
        members = [answers.models.index(name) for name in row["members"]]
        assert row["ceiling"] == pytest.approx(answers.right[members].any(axis=0).mean())
        assert row["bound"] > row["ceiling"]
        for accuracy in row["accuracy"].values():
            assert accuracy is None or accuracy["value"] <= row["ceiling"]


def test_complementary_pools_cover_the_most(simulated):
    answers = simulated([0.7, 0.69, 0.6], alike=(0, 1))
    found = pools(answers, np.arange(answers.n), 2)
    assert found["complementary", 2] == (0, 2)
    assert found["most accurate", 2] == (0, 1)


def test_self_consistency_at_equal_tokens_is_the_baseline_if_it_is_better(simulated):
    answers = simulated([0.75, 0.75, 0.75])
    better = np.random.default_rng(9).random(answers.n) < 0.9
    told = study(replace(answers, samples={3: better}))["recommendation"]
    assert told["baseline"] == f"the self-consistency of {told['best']} with 3 answers"
    assert not told["mix"]
    dear = study(replace(answers, samples={9: better}))["recommendation"]
    assert dear["baseline"] in {"a", "b", "c"}


def test_equal_questions_are_never_on_both_sides(simulated):
    answers = simulated([0.75, 0.75, 0.75], n=60)
    tenfold = replace(
        answers,
        groups=answers.groups * 10,
        right=np.tile(answers.right, 10),
        codes=np.tile(answers.codes, 10),
        tokens=np.tile(answers.tokens, 10),
    )
    one, other = study(answers), study(tenfold)
    assert other["distinct"] == 60
    assert other["recommendation"]["gain"]["n"] == 60
    assert "600 questions (60 different)" in report(other)
    width = [
        f["recommendation"]["gain"]["high"] - f["recommendation"]["gain"]["low"]
        for f in (one, other)
    ]
    assert width[1] == pytest.approx(width[0], rel=0.3)


@pytest.mark.parametrize("n", [1, 5, 19])
def test_too_few_questions_are_told(simulated, n):
    with pytest.raises(EvalError, match=f"{n} different questions .* 20 or more"):
        study(simulated([0.5, 0.5], n=n))


@pytest.mark.parametrize("largest", [-1, 0, 1])
def test_a_pool_has_two_models(simulated, largest):
    with pytest.raises(EvalError, match="at least two models"):
        study(simulated([0.5, 0.5]), largest=largest)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_models_that_are_always_right_or_wrong(simulated, share):
    found = study(simulated([share, share], n=40))
    assert not found["recommendation"]["mix"]
    assert found["pools"][0]["correlation"] is None
    assert figure(found)
    assert report(found)


def test_what_was_not_evaluated_is_told(simulated):
    answers = simulated([0.75, 0.75])
    found = study(replace(answers, tokens=np.full(answers.right.shape, np.nan)))
    assert [sentence.partition(":")[0] for sentence in missing(found)] == [
        "central",
        "rank and synthesis",
        f"self-consistency of {found['recommendation']['best']}",
        "tokens",
    ]
    assert (
        "2 calls instead of one" in found["recommendation"]["sentence"]
        or not found["recommendation"]["mix"]
    )
    assert figure(found).axes[0].get_xlabel() == "calls of models a question"


def part(answers, places):
    likeness = None if answers.likeness is None else answers.likeness[places]
    return replace(
        answers,
        groups=tuple(answers.groups[i] for i in places),
        right=answers.right[:, places],
        codes=answers.codes[:, places],
        tokens=answers.tokens[:, places],
        likeness=likeness,
    )


def only(answers, rows):
    return replace(
        answers,
        models=tuple(answers.models[i] for i in rows),
        right=answers.right[rows],
        codes=answers.codes[rows],
        tokens=answers.tokens[rows],
    )


GROUPS = ["all", "lower half", "second quarter", "strong and weak"]
HALVES = (  # all of them with the simulations of the guide
    list(itertools.product(["gsm", "math-l5"], GROUPS))
    if "MOA_SIMULATIONS" in os.environ
    else [("gsm", "strong and weak"), ("math-l5", "lower half")]
)


@pytest.mark.full
@pytest.mark.parametrize(("name", "some"), HALVES)
def test_what_is_claimed_holds_on_the_other_half(data, name, some):
    whole = answers_of(read_set(data / "zero_eval" / name), quiet=True)
    n = len(whole.models)
    rows = {
        "all": range(n),
        "lower half": range(n // 2, n),
        "second quarter": range(n // 4, n // 2),
        "strong and weak": [0, *range(n - 6, n)],
    }[some]
    answers = only(whole, list(rows))
    rng = np.random.default_rng(1)
    inside, bounded, gains, splits = 0, 0, [], 50
    for _ in range(splits):
        order = rng.permutation(answers.n)
        here = part(answers, np.sort(order[: answers.n // 2]))
        there = part(answers, np.sort(order[answers.n // 2 :]))
        everywhere = np.arange(here.n)
        found = study(here)
        told = found["recommendation"]
        chosen = choose(here, everywhere, 5)
        held_out = results(there, chosen).mean() - there.right[best_model(here, everywhere)].mean()
        inside += told["gain"]["low"] <= held_out <= told["gain"]["high"]
        if told["mix"]:
            gains.append(held_out)
        bounds = {tuple(row["members"]): row["bound"] for row in found["pools"]}
        bounded += all(
            results(there, choice).mean() <= bounds[tuple(here.models[i] for i in members)]
            for members in pools(here, everywhere, 5).values()
            for choice in choices(here, members, everywhere)
        )
    assert inside >= 0.9 * splits
    assert bounded >= 0.95 * splits
    assert not gains or np.mean(gains) > 0
    if some == "strong and weak":
        assert len(gains) <= 0.1 * splits
    if some == "lower half":
        assert len(gains) > 0.5 * splits
