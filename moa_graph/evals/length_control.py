"""Win rate for answers of the same length as the baseline's.

A judge may prefer longer answers. The model is AlpacaEval's (Dubois et al., arXiv 2404.04475)
without the difficulty of the instructions: a logistic regression of the preference on the length
difference, whose prediction at a difference of 0 is the controlled rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from moa_graph.evals import intervals
from moa_graph.evals.intervals import CONFIDENCE, Interval

_FEWEST = 10  # answers of either side that are as long as the other's or longer
_LEAST_SHARE = 0.1
_LARGEST = 15.0  # log odds at equal lengths
_STEEPEST = 60.0  # log odds for a difference of many standard deviations


def length_controlled(
    means: Sequence[float], lengths: Sequence[float], others: Sequence[float]
) -> tuple[Interval | None, str | None]:
    """Estimate the win rate at equal lengths, if the lengths overlap enough.

    The regression maximizes the likelihood with Jeffreys' prior (Firth), which is finite if one
    side wins always. The interval is that of the profile likelihood, with the quantile of
    Student's distribution for the smaller group of lengths. Preferences are counted as if each
    were a win or a loss, so that the interval is wider than needed if there are many ties.

    Args:
        means: Mean preference of both orders, from 0 to 1, by question.
        lengths: Lengths of the target's answers in characters.
        others: Lengths of the baseline's answers in characters.

    Returns:
        The win rate with its interval, and None; or None, and the reason why length and quality
        cannot be separated: at least ten questions, and at least a tenth of all, must have an
        answer that is not longer than the baseline's, and as many one that is not shorter.
    """
    gaps = np.asarray(lengths, dtype=float) - np.asarray(others, dtype=float)
    wins = np.asarray(means, dtype=float)
    n = len(wins)
    needed = max(_FEWEST, int(np.ceil(_LEAST_SHARE * n)))
    for told, some in (("not longer", gaps <= 0), ("not shorter", gaps >= 0)):
        if (found := int(some.sum())) < needed:
            return None, (
                f"not available: in {found} of {n} questions the answer is {told} than the "
                f"baseline's, and {needed} are needed to separate length from quality"
            )
    if not gaps.any():
        return intervals.mean(wins.tolist()), None
    terms = np.tanh(gaps / gaps.std()) if gaps.std() else np.sign(gaps)
    smaller = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    allowed = stats.t.ppf((1 + CONFIDENCE) / 2, smaller - 1) ** 2 / 2

    def profile(intercept: float) -> float:
        return _highest(lambda slope: _likelihood(intercept, slope, terms, wins), _STEEPEST)[1]

    value, best = _highest(profile, _LARGEST)
    low, high = (
        optimize.brentq(lambda at: best - profile(at) - allowed, value, end)
        if best - profile(end) > allowed
        else end
        for end in (value - _LARGEST, value + _LARGEST)
    )
    rate, lowest, highest = (float(special.expit(at)) for at in (value, low, high))
    return Interval(rate, lowest, highest, n), None


def _highest(function: Callable[[float], float], limit: float) -> tuple[float, float]:
    """Return where a function of one variable is highest within ± `limit`, and its value there."""
    found = optimize.minimize_scalar(
        lambda at: -function(at), bounds=(-limit, limit), method="bounded"
    )
    return float(found.x), -float(found.fun)


def _likelihood(intercept: float, slope: float, terms: Any, wins: Any) -> float:
    """Return the log likelihood with Jeffreys' prior."""
    odds = intercept + slope * terms
    rates = special.expit(odds)
    weights = rates * (1 - rates)
    information = weights.sum() * (weights * terms**2).sum() - (weights * terms).sum() ** 2
    likelihood = float((wins * odds - np.logaddexp(0, odds)).sum())
    return likelihood + 0.5 * float(np.log(max(information, np.finfo(float).tiny)))
