"""How sure is it? Means with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 4999
_SEED = 0
_FEWEST = 6  # with fewer even a difference in every question may be chance


@dataclass(frozen=True)
class Interval:
    """A value, and where it may lie with a confidence of 95 %."""

    value: float
    low: float
    high: float
    n: int
    """How many items it is the mean of."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def percent(self, digits: int = 1) -> str:
        """Such as `"52.3 [48.0, 56.6]"`, from shares of 1."""
        low, value, high = (100 * x for x in (self.low, self.value, self.high))
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def mean(values: Sequence[float], *, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """Return the mean of one value an item.

    Args:
        values: One an item, at least one.
        lowest: No value can be lower.
        highest: No value can be higher.

    Returns:
        With a percentile bootstrap over items (4,999 resamples, seeded). Where all values are the
        same, resampling would claim certainty: the interval then has room for the share of other
        items that may have been missed (Wilson's upper bound of none), each as far off as can be.
        Of shares that are all 0 or all 1 that is Wilson's interval.
    """
    data = np.asarray(values, dtype=float)
    if data.min() != data.max():
        return _bootstrap(data)
    value, n = float(data[0]), len(data)
    missed = stats.binomtest(0, n).proportion_ci(CONFIDENCE, method="wilson").high
    low, high = value - missed * (value - lowest), value + missed * (highest - value)
    return Interval(value, float(low), float(high), n)


def difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean difference between two values of each item (paired), with an interval as `mean`'s.

    Args:
        values: One an item, from 0 to 1.
        others: Likewise.
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
    """Return a statistic of whole rows.

    Args:
        statistic: From an array of rows to a number.
        rows: An array, a row an item.
        resamples: How many; each computes the statistic.
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
    """Return a difference in a sentence, honest about what is not shown."""
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
