"""Means with confidence intervals that hold for small samples, too."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_DRAWS = 9999
_MANY, _FEWER_DRAWS = 10_000, 1999  # different values, and random weights for so many
_AT_ONCE = 2_000_000  # random numbers in memory at a time
_SEED = 0
_ROUNDING = 1e-9
_FEWEST = 6  # with fewer, the interval includes 0 even if all differences have one sign


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    n: int
    """Number of items; items of one group count once."""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def percent(self, digits: int = 1) -> str:
        """Format shares of 1 as percent, such as `"52.3 [48.0, 56.6]"`."""
        low, value, high = (100 * x for x in (self.low, self.value, self.high))
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary for JSON."""
        return asdict(self)


def mean(
    values: Sequence[float],
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the mean of bounded values with a confidence interval.

    Args:
        values: One value for each item; at least one.
        lowest: Lowest possible value.
        highest: Highest possible value.
        groups: Group of each item, such as its question. Items of a group are not independent:
            their values are averaged, and the group counts once. By default each item is a group.

    Returns:
        The mean with an interval that assumes nothing about the distribution but its bounds. If
        all values are the lowest or the highest possible one, it is the interval of Clopper and
        Pearson. The random numbers of other cases are seeded, so that equal values have equal
        intervals.

    Raises:
        ValueError: If there is no value, or one is outside of the bounds or not a number.

    Source: Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean of
        a nonnegative variable" (2005); Learned-Miller and Thomas (arXiv 1905.06208).
    """
    data = np.asarray(values if groups is None else by_group(values, groups), dtype=float)
    if not len(data):
        raise ValueError("A mean needs at least one value.")
    if not ((data > lowest - _ROUNDING) & (data < highest + _ROUNDING)).all():
        raise ValueError(f"The values must be from {lowest:g} to {highest:g}.")
    data = data.clip(lowest, highest)
    low, high = -_upper_limit(-data, -lowest), _upper_limit(data, highest)
    return Interval(float(data.mean()), low, high, len(data))


def difference(
    values: Sequence[float],
    others: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the mean paired difference `values - others`, with an interval as in `mean`.

    Args:
        values: One value for each item, from 0 to 1.
        others: One value for each item, in the same order, from 0 to 1.
        groups: Group of each item, as in `mean`.
    """
    pairs = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    return mean(list(pairs), lowest=-1.0, groups=groups)


def on_others(
    found: Interval, *, lowest: float = 0.0, highest: float = 1.0, spread: float = 0.0
) -> Interval:
    """Return the interval of the mean that as many other items would have.

    A confidence interval is about the expected value. The mean of other items varies by chance as
    much as the one at hand, so the interval is wider by the square root of 2.

    Args:
        found: A mean with its confidence interval.
        lowest: Lowest possible value.
        highest: Highest possible value.
        spread: Standard deviation of the expected value itself, such as among choices.
    """
    quantile = float(stats.norm.ppf(1 - _TAIL))
    low, high = (
        math.sqrt(2 * arm**2 + (quantile * spread) ** 2)
        for arm in (found.value - found.low, found.high - found.value)
    )
    return Interval(
        found.value, max(lowest, found.value - low), min(highest, found.value + high), found.n
    )


def by_group(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Return the mean value of each group, in order of first appearance.

    Args:
        values: One value for each item.
        groups: Group of each item.
    """
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(group, len(numbers)) for group in groups]
    means = np.bincount(places, weights=values) / np.bincount(places)
    return [float(value) for value in means]


def _upper_limit(data: Any, highest: float) -> float:
    """Return a quantile of the mean of the values and `highest`, under random weights.

    The weights are uniformly distributed among all that are positive and add up to 1. Equal values
    share the sum of their weights.
    """
    found, counts = np.unique(np.append(data, highest), return_counts=True)
    if len(found) == 1:
        return highest
    if len(found) == 2:  # noqa: PLR2004 - then the sum of weights has a known distribution
        share = stats.beta.ppf(1 - _TAIL, counts[1], counts[0])
        return float(found[0] + share * (found[1] - found[0]))
    rng = np.random.default_rng(_SEED)
    means: list[Any] = []
    draws = _DRAWS if len(found) < _MANY else _FEWER_DRAWS
    step = max(1, _AT_ONCE // len(found))
    for start in range(0, draws, step):
        weights = rng.standard_gamma(counts, size=(min(step, draws - start), len(found)))
        means.append(weights @ found / weights.sum(axis=1))
    return float(np.quantile(np.concatenate(means), 1 - _TAIL))


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
    return (
        f"No difference in {unit} between {name} and {other} is statistically significant: "
        f"{found.percent()} points."
    )
