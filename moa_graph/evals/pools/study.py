"""Estimate what a mixture gains over the best model, on questions it was not chosen on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moa_graph.evals import intervals
from moa_graph.evals.files import EvalError, Row
from moa_graph.evals.intervals import Interval
from moa_graph.evals.pools.answers import Answers, Members, Right
from moa_graph.evals.pools.choosing import ASKED, PICKED
from moa_graph.evals.pools.selection import (
    FAMILIES,
    FOLDS,
    Choice,
    Places,
    best_model,
    choose,
    cross_fitted,
    folds_of,
    pools,
    results,
    tokens,
)

LARGEST = 5
_FEWEST_QUESTIONS = 20
_WORTHWHILE = 0.02  # a pool that can gain at most this much is not worth its tokens


def study(answers: Answers, *, largest: int = LARGEST) -> Row:
    """Compare pools of models and their strategies with the best single model.

    Everything is chosen on four fifths of the questions and judged on the last fifth, in turn: the
    pool, the strategy, the weights of votes, and the best single model.

    Args:
        answers: Answers of the models to the same questions.
        largest: Maximum number of models in a pool.

    Returns:
        `set`, `n` (questions), `distinct` (different questions), `recommendation` (`mix`,
        `members`, `strategy`, `weights`, `best`, `baseline`, `gain`, `expected`, `tokens` as a
        multiple of the baseline's, `sentence`), `models`, `pools`, `everyone` (the ceiling of all
        models together), `samples` (self-consistency of the best model), `left_out` (models with
        too few answers, with their numbers), and `correlations` of errors by pair of models.

    Raises:
        EvalError: If there are fewer than 20 different questions, or `largest` is below 2.
    """
    if largest < 2:  # noqa: PLR2004 - a pool has two models
        raise EvalError(f"A pool has at least two models: the largest cannot have {largest}.")
    distinct = len(set(answers.groups))
    check_enough(answers.name, distinct)
    everywhere = np.arange(answers.n)
    best = best_model(answers, everywhere)
    return {
        "set": answers.name,
        "n": answers.n,
        "distinct": distinct,
        "recommendation": _recommendation(answers, largest, best),
        "models": _models(answers, best),
        "pools": _pools(answers, largest, best),
        "everyone": _ceiling(answers, tuple(range(len(answers.models)))),
        "samples": _samples(answers, best),
        "left_out": dict(answers.left_out),
        "correlations": _correlations(answers),
    }


def check_enough(name: str, distinct: int) -> None:
    """Check that there are enough questions to choose a pool and to judge it.

    Args:
        name: Name of the set.
        distinct: Number of different questions.

    Raises:
        EvalError: If there are fewer than 20.
    """
    if distinct < _FEWEST_QUESTIONS:
        raise EvalError(
            f"{name} has {distinct} different questions for all models; a pool is chosen and "
            f"judged on {_FEWEST_QUESTIONS} or more."
        )


def expected_gain(answers: Answers, largest: int) -> tuple[Interval, Interval]:
    """Return the gain of the chosen mixture over the baseline on as many other questions.

    The value is the mean over questions that were not used for any choice. The interval has the
    gain on other questions of this kind in 95 % of repetitions; it allows for the chance in both
    sets of questions, and for the difference between the mixtures that each fold chose.

    Returns:
        The gain with that interval, and with the confidence interval of the expected gain.
    """
    differences, means = np.zeros(answers.n), []
    folds = folds_of(answers.groups)
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        chosen = choose(answers, train, largest)
        alone = baseline(answers, chosen, train)[1].astype(float)
        gains = results(answers, chosen).astype(float) - alone
        differences[test] = gains[test]
        means.append(float(np.average(gains, weights=answers.weights)))
    found = intervals.mean(differences.tolist(), lowest=-1.0, groups=answers.groups)
    # Folds share most of their questions: the jackknife scales the spread of their choices.
    spread = (FOLDS - 1) * float(np.std(means)) / math.sqrt(FOLDS - 1)
    return intervals.on_others(found, lowest=-1.0, spread=spread), found


def baseline(answers: Answers, choice: Choice, places: Places) -> tuple[str, Right, float | None]:
    """Return the best use of one model that takes no more tokens than a choice.

    Args:
        answers: The answers.
        choice: The mixture to compare with.
        places: Questions to choose the baseline on.

    Returns:
        Its name, whether its answers are right, and its mean tokens for a question: the best
        model, or its self-consistency if this is right more often and was evaluated.
    """
    best = best_model(answers, places)
    alone = answers.tokens_of([best])
    found = [(answers.models[best], answers.right[best], alone)]
    spent = tokens(answers, choice)
    for count, right in answers.samples.items():
        if alone is not None and spent is not None and count * alone <= spent * 1.1:
            name = f"the self-consistency of {answers.models[best]} with {count} answers"
            found.append((name, right, count * alone))
    return max(found, key=lambda one: answers.accuracy(one[1], places))


def _recommendation(answers: Answers, largest: int, best: int) -> Row:
    everywhere = np.arange(answers.n)
    chosen = choose(answers, everywhere, largest)
    name, _, spent = baseline(answers, chosen, everywhere)
    gain, expected = expected_gain(answers, largest)
    own = tokens(answers, chosen)
    ceiling = _ceiling(answers, tuple(range(len(answers.models))))
    found = {
        "mix": gain.low > 0,
        "members": [answers.models[i] for i in chosen.members],
        "strategy": chosen.strategy,
        "weights": (
            dict(zip([answers.models[i] for i in chosen.members], chosen.weights, strict=True))
            if chosen.weights
            else None
        ),
        "best": answers.models[best],
        "accuracy": answers.accuracy(answers.right[best]),
        "baseline": name,
        "gain": gain.as_dict(),
        "expected": expected.as_dict(),
        "tokens": None if own is None or not spent else own / spent,
        "calls": len(chosen.members) + (chosen.strategy in ASKED),
    }
    return {**found, "sentence": _sentence(found, ceiling)}


def _sentence(found: Row, ceiling: Row) -> str:
    """Return the recommendation as one sentence."""
    gain, names = Interval(**found["gain"]), ", ".join(found["members"])
    alone = 100 * found["accuracy"]
    bound = 100 * ceiling["bound"]
    told = f"{100 * gain.value:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}] points"
    expected = Interval(**found["expected"]).percent()
    if found["mix"]:
        cost = (
            f"{found['calls']} calls instead of one"
            if found["tokens"] is None
            else f"{found['tokens']:.1f} times its tokens"
        )
        over = "the best single model, " if found["baseline"] == found["best"] else ""
        return (
            f"Mix these {_count(len(found['members']))} by {found['strategy']}: {names}: {told} "
            f"over {over}{found['baseline']}, for {cost}."
        )
    if ceiling["bound"] - found["accuracy"] <= _WORTHWHILE:
        return (
            f"Do not mix: no pool can exceed {bound:.1f} %, the best model alone, "
            f"{found['best']}, has {alone:.1f} %."
        )
    return (
        f"Do not mix: a gain over {found['baseline']} on other questions is not assured. Pools "
        f"that were chosen as the best one ({names}, by {found['strategy']}) gained {told} (95 % "
        f"confidence interval: {expected}). The best model alone, {found['best']}, has "
        f"{alone:.1f} %, and no pool can exceed {bound:.1f} %."
    )


def _count(number: int) -> str:
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number - 2] if 2 <= number < len(words) + 2 else str(number)  # noqa: PLR2004


def _ceiling(answers: Answers, members: Members) -> Row:
    """Return the share of questions that some member answers right, and its upper bound.

    No strategy that picks a member's answer can be right more often (arXiv 2606.27288). The bound
    is that of Clopper and Pearson, widened so that it holds for the share of as many other
    questions, with a probability of 97.5 %.
    """
    fails = ~answers.right[list(members)].any(axis=0)
    failing = intervals.mean(fails.astype(float).tolist(), groups=answers.groups)
    return {"ceiling": 1 - failing.value, "bound": 1 - intervals.on_others(failing).low}


def _models(answers: Answers, best: int) -> list[Row]:
    errors = _errors(answers)
    rows: list[Row] = [
        {
            "model": name,
            "accuracy": intervals.mean(
                answers.right[i].astype(float).tolist(), groups=answers.groups
            ).as_dict(),
            "tokens": answers.tokens_of([i]),
            "correlation": None if i == best else _number(errors[i, best]),
        }
        for i, name in enumerate(answers.models)
    ]
    return sorted(rows, key=lambda row: -row["accuracy"]["value"])


def _pools(answers: Answers, largest: int, best: int) -> list[Row]:
    """Return a row for each pool; accuracies are of pools that were chosen on other questions."""
    everywhere = np.arange(answers.n)
    found, judged = pools(answers, everywhere, largest), cross_fitted(answers, everywhere, largest)
    errors, alone = _errors(answers), answers.tokens_of([best])
    rows = []
    for (family, size), members in sorted(
        found.items(), key=lambda item: (item[0][1], FAMILIES.index(item[0][0]))
    ):
        pairs = [errors[a, b] for a in members for b in members if a < b]
        accuracy = {}
        for strategy in (*PICKED, *ASKED):
            values = judged.get((family, size, strategy))
            accuracy[strategy] = (
                None
                if values is None
                else intervals.mean(values.tolist(), groups=answers.groups).as_dict()
            )
        spent = answers.tokens_of(members)
        rows.append(
            {
                "chosen": family,
                "size": size,
                "members": [answers.models[i] for i in members],
                **_ceiling(answers, members),
                "correlation": _number(float(np.mean(pairs))),
                "accuracy": accuracy,
                "tokens": spent,
                "asked_tokens": {
                    strategy: answers.asked_tokens[frozenset(members), strategy]
                    for strategy in ASKED
                    if (frozenset(members), strategy) in answers.asked_tokens
                },
                "times": None if spent is None or not alone else spent / alone,
            }
        )
    return rows


def _samples(answers: Answers, best: int) -> list[Row]:
    alone = answers.tokens_of([best])
    return [
        {
            "answers": count,
            "accuracy": intervals.mean(
                right.astype(float).tolist(), groups=answers.groups
            ).as_dict(),
            "tokens": None if alone is None else count * alone,
        }
        for count, right in answers.samples.items()
    ]


def _errors(answers: Answers) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef((~answers.right).astype(float))


def _correlations(answers: Answers) -> dict[str, dict[str, float | None]]:
    errors = _errors(answers)
    return {
        name: {other: _number(errors[i, j]) for j, other in enumerate(answers.models) if j != i}
        for i, name in enumerate(answers.models)
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
