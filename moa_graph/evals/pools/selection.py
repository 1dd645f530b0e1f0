"""Choose a pool of models and a strategy for it on some of the questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moa_graph.evals.pools.answers import Answers, Members, Right
from moa_graph.evals.pools.choosing import (
    ASKED,
    CENTRAL,
    VOTE,
    WEIGHTED,
    by_vote,
    central,
    vote_weight,
)

COMPLEMENTARY, ACCURATE, VOTING = "complementary", "most accurate", "best at voting"
FAMILIES = (COMPLEMENTARY, ACCURATE, VOTING)
"""Ways to choose the models of a pool."""

FOLDS = 5
_SEED = 0

Places = NDArray[np.int_]
"""Numbers of questions."""


@dataclass(frozen=True)
class Choice:
    """A pool with its strategy.

    Args:
        members: Rows of the models, in the order in which they win ties.
        strategy: Name of the strategy.
        weights: Weights of the votes, if the strategy is a weighted vote.
    """

    members: Members
    strategy: str
    weights: tuple[float, ...] | None = None


def best_model(answers: Answers, places: Places) -> int:
    """Return the row of the model with the most right answers; the first of several."""
    return int(np.argmax([answers.accuracy(row, places) for row in answers.right]))


def pools(answers: Answers, places: Places, largest: int) -> dict[tuple[str, int], Members]:
    """Return pools of 2 to `largest` models, by family and size.

    A pool begins with the best model, and grows by one model at a time. In the family
    `complementary` it is the model that answers the most questions right on which all members so
    far fail (arXiv 2605.24048); in `most accurate`, the next best model; in `best at voting`, the
    one with which a weighted vote of the pool is right most often.

    Args:
        answers: The answers.
        places: Questions to choose on.
        largest: Maximum number of models in a pool.
    """
    right = answers.right[:, places]
    first = best_model(answers, places)
    accuracy = np.array([answers.accuracy(row, places) for row in answers.right])
    weights = [vote_weight(row) for row in right]

    def covered(members: Members) -> float:
        return answers.accuracy(np.any(answers.right[list(members)], axis=0), places)

    def voted(members: Members) -> float:
        return answers.accuracy(by_vote(answers, members, [weights[i] for i in members]), places)

    found = {}
    goals: dict[str, Callable[[Members], float]] = {
        COMPLEMENTARY: covered,
        ACCURATE: lambda members: float(accuracy[members[-1]]),
        VOTING: voted,
    }
    for family, goal in goals.items():
        members: Members = (first,)
        for size in range(2, min(largest, len(accuracy)) + 1):
            left = [i for i in range(len(accuracy)) if i not in members]
            best = max(left, key=lambda i: (goal((*members, i)), accuracy[i], -i))
            members = (*members, best)
            found[family, size] = tuple(sorted(members, key=lambda i: (-accuracy[i], i)))
    return found


def choices(answers: Answers, members: Members, places: Places) -> Iterator[Choice]:
    """Yield the strategies that can be evaluated with a pool, with weights from some questions."""
    yield Choice(members, VOTE)
    weights = tuple(vote_weight(answers.right[i, places]) for i in members)
    yield Choice(members, WEIGHTED, weights)
    if answers.likeness is not None:
        yield Choice(members, CENTRAL)
    for strategy in ASKED:
        if (frozenset(members), strategy) in answers.asked:
            yield Choice(members, strategy)


def results(answers: Answers, choice: Choice) -> Right:
    """Return whether the answer of a choice is right, for every question."""
    if choice.strategy in ASKED:
        return answers.asked[frozenset(choice.members), choice.strategy]
    if choice.strategy == CENTRAL:
        return central(answers, choice.members)
    return by_vote(answers, choice.members, choice.weights)


def tokens(answers: Answers, choice: Choice) -> float | None:
    """Return the mean tokens of a choice for a question; None if unknown."""
    pool = answers.tokens_of(choice.members)
    more = answers.asked_tokens.get((frozenset(choice.members), choice.strategy), 0.0)
    return None if pool is None else pool + more


def folds_of(groups: Sequence[str]) -> Places:
    """Return the fold of each question, from 0 to 4; equal questions are in the same fold."""
    different = list(dict.fromkeys(groups))
    order = np.random.default_rng(_SEED).permutation(len(different))
    fold = {group: int(place) % FOLDS for group, place in zip(different, order, strict=True)}
    return np.array([fold[group] for group in groups])


def cross_fitted(
    answers: Answers, places: Places, largest: int
) -> dict[tuple[str, int, str], Places]:
    """Return how often each way to mix is right on questions that it was not fitted to.

    Pools and weights are chosen on four fifths of the questions, and applied to the last fifth.

    Args:
        answers: The answers.
        places: Questions to use.
        largest: Maximum number of models in a pool.

    Returns:
        By family, size and strategy: for each of `places`, 1 if the answer is right, else 0. A
        strategy that was not evaluated with all pools is left out.
    """
    folds = folds_of([answers.groups[i] for i in places])
    found: dict[tuple[str, int, str], Places] = {}
    times: Counter[tuple[str, int, str]] = Counter()
    for fold in range(FOLDS):
        train, inside = places[folds != fold], np.flatnonzero(folds == fold)
        for (family, size), members in pools(answers, train, largest).items():
            for choice in choices(answers, members, train):
                key = (family, size, choice.strategy)
                row = found.setdefault(key, np.zeros(len(places), dtype=int))
                row[inside] = results(answers, choice)[places[inside]]
                times[key] += 1
    return {key: row for key, row in found.items() if times[key] == FOLDS}


def choose(answers: Answers, places: Places, largest: int) -> Choice:
    """Return the pool and the strategy that promise the most right answers.

    Ways to mix are compared by `cross_fitted`, since a pool that was chosen by the votes on some
    questions looks better on these than it is. Strategies that ask a model are compared on all
    questions, as their pools are not chosen by their results.

    Args:
        answers: The answers.
        places: Questions to choose on.
        largest: Maximum number of models in a pool.
    """
    found = pools(answers, places, largest)
    estimates = {
        key: float(np.average(row, weights=answers.weights[places]))
        for key, row in cross_fitted(answers, places, largest).items()
    }
    options = []
    for (family, size), members in found.items():
        for choice in choices(answers, members, places):
            if choice.strategy in ASKED:
                estimate = answers.accuracy(results(answers, choice), places)
            else:
                estimate = estimates[family, size, choice.strategy]
            options.append((estimate, -size, choice))
    return max(options, key=lambda option: option[:2])[2]
