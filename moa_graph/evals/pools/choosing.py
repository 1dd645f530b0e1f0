"""Choose an answer of a pool for every question at once, as the strategies of a graph do.

`Vote` and `MostCentral` choose the same answers, one question at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moa_graph.evals.pools.answers import Answers, Members, Right

VOTE, WEIGHTED, CENTRAL = "vote", "weighted vote", "central"
RANK, SYNTHESIS = "rank", "synthesis"
PICKED = (VOTE, WEIGHTED, CENTRAL)
"""Strategies that need no further call of a model."""
ASKED = (RANK, SYNTHESIS)
"""Strategies that ask a model."""

_WRONG_ANSWERS = 9  # assumed number of possible wrong answers to a question
_LEAST_WEIGHT = 0.01
_EQUAL = 1e-9


def vote_weight(right: Sequence[float] | Any) -> float:
    """Return the weight of a model's vote: the log odds of a right answer, at least 0.01.

    Args:
        right: 1 or 0 for each question that the model was asked.
    """
    share = (float(sum(right)) + 1) / (len(right) + 2)
    return max(_LEAST_WEIGHT, math.log(_WRONG_ANSWERS * share / (1 - share)))


def by_vote(answers: Answers, members: Members, weights: Sequence[float] | None = None) -> Right:
    """Return whether the answer with the most votes is right.

    Args:
        answers: The answers.
        members: The pool. In a tie, the first member of those with the most votes wins.
        weights: Weight of each member's vote; 1 by default.
    """
    codes = answers.codes[list(members)]
    weighing = np.asarray([1.0] * len(members) if weights is None else weights)
    votes = np.zeros(codes.shape)
    for code, weight in zip(codes, weighing, strict=True):
        votes += weight * (codes == code)
    votes[codes < 0] = -1.0
    return _right_of(answers, members, votes)


def central(answers: Answers, members: Members) -> Right:
    """Return whether the reply that is most similar to the others is right.

    Raises:
        ValueError: If the full replies are not known.
    """
    if answers.likeness is None:
        raise ValueError("The full replies are not known.")
    rows = list(members)
    likeness = answers.likeness[:, rows][:, :, rows]
    usable = ~np.isnan(np.diagonal(likeness, axis1=1, axis2=2))
    others = np.maximum(usable.sum(axis=1) - 1, 1)
    sums = np.nansum(likeness, axis=2) - np.nan_to_num(np.diagonal(likeness, axis1=1, axis2=2))
    scores = np.where(usable, np.round(sums / others[:, None], 9), -1.0)
    return _right_of(answers, members, scores.T)


def _right_of(answers: Answers, members: Members, scores: NDArray[np.float64]) -> Right:
    """Return whether the member with the highest score is right; none below 0 is chosen."""
    highest = scores.max(axis=0)
    winner = (scores >= highest - _EQUAL).argmax(axis=0)
    right = answers.right[list(members)][winner, np.arange(answers.n)]
    return np.asarray(right & (highest >= 0))
