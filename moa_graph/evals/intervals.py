"""Means with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 4999
_SEED = 0
_FEWEST = 6  # with fewer, a difference in every question may be chance


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    n: int
    """Number of items."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def percent(self, digits: int = 1) -> str:
        """Format shares of 1 as percent, such as `"52.3 [48.0, 56.6]"`."""
        low, value, high = (100 * x for x in (self.low, self.value, self.high))
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary for JSON."""
        return asdict(self)


def mean(values: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """Return the mean of values with a confidence interval.

    Args:
        values: One value for each item; at least one.
        lowest: Lowest possible value.
        highest: Highest possible value.

    Returns:
        The mean with a percentile bootstrap interval over items (4,999 resamples, seeded). If all
        values are equal, a bootstrap interval would have zero width. The interval then assumes
        that a share of unseen items (Wilson's upper bound for 0 of n) has the lowest or the
        highest possible value. If all values are 0 or all are 1, it is Wilson's interval.
    """
    data = np.asarray(values, dtype=float)
    if data.min() != data.max():
        return _bootstrap(data)
    value, n = float(data[0]), len(data)
    missed = stats.binomtest(0, n).proportion_ci(CONFIDENCE, method="wilson").high
    low, high = value - missed * (value - lowest), value + missed * (highest - value)
    return Interval(value, float(low), float(high), n)


def difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Return the mean paired difference `values - others`, with an interval as in `mean`.

    Args:
        values: One value for each item, from 0 to 1.
        others: One value for each item, in the same order, from 0 to 1.
    """
    pairs = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    return mean(list(pairs), lowest=-1.0)


def _bootstrap(data: Any) -> Interval:
    found = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=500,
        method="percentile",
        confidence_level=CONFIDENCE,
        rng=_SEED,
    ).confidence_interval
    return Interval(float(data.mean()), float(found.low), float(found.high), len(data))


def of_statistic(statistic: Callable[[Any], float], rows: Any, resamples: int = 999) -> Interval:
    """Return a statistic of rows, with a percentile bootstrap interval over the rows.

    Args:
        statistic: Function from an array of rows to a number.
        rows: An array with one row for each item.
        resamples: Number of resamples; each computes the statistic once.
    """
    data = np.asarray(rows, dtype=float)
    rng = np.random.default_rng(_SEED)
    values = [
        statistic(data[rng.integers(0, len(data), len(data))])
        for _ in range(resamples if len(data) > 1 else 0)
    ]
    value = float(statistic(data))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) if values else (value, value)
    return Interval(value, float(low), float(high), len(data))


def says(name: str, other: str, found: Interval, unit: str = "accuracy") -> str:
    """Return a sentence that states the difference, or that none is statistically significant."""
    if found.n < _FEWEST:
        return (
            f"No difference in {unit} is shown between {name} and {other}: {found.n} questions are "
            "too few."
        )
    if found.low > 0:
        return f"{name} has the higher {unit} than {other}: by {found.percent()} points."
    if found.high < 0:
        less = Interval(-found.value, -found.high, -found.low, found.n)
        return f"{name} has the lower {unit} than {other}: by {less.percent()} points."
    return f"No difference in {unit} is shown between {name} and {other}: {found.percent()} points."
