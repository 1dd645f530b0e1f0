from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from moa_graph.evals import intervals


def test_interval_of_a_mean_is_scipys_bootstrap():
    values = np.random.default_rng(1).normal(5, 2, 80)
    found = intervals.mean(values.tolist())
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4999, batch=500, method="percentile", rng=0
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert found == intervals.mean(values.tolist())


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(60):
        found = intervals.mean(rng.binomial(1, 0.3, 120).tolist())
        inside += found.low <= 0.3 <= found.high
    assert 51 <= inside <= 60


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_is_not_certain(value):
    found = intervals.mean([value] * 20)
    assert found.value == value
    assert 0.1 < found.high - found.low < 0.2


def test_equal_answers_have_no_difference_but_leave_a_doubt():
    found = intervals.difference([1, 0, 1], [1, 0, 1])
    assert found.value == 0
    assert -1 < found.low == -found.high < 0
    more = intervals.difference([1, 0] * 100, [1, 0] * 100)
    assert 0 < more.high < 0.02


def test_values_that_are_all_the_same_are_no_certainty():
    ties = intervals.mean([0.5] * 8)
    assert (ties.low, ties.high) == pytest.approx((0.338, 0.662), abs=1e-3)
    unlike = intervals.mean([0.0] * 8, highest=100)
    assert (unlike.low, unlike.high) == pytest.approx((0, 32.4), abs=0.1)


def test_nothing_is_claimed_of_a_few_questions():
    assert "too few" in intervals.says("a", "b", intervals.difference([1.0], [0.5]))
    one, other = intervals.difference([1] * 9, [0] * 9), intervals.difference([0] * 9, [1] * 9)
    assert (one.low, one.high) == (-other.high, -other.low)


def test_difference_is_paired():
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 10, 100)
    found = intervals.difference((hard + 1 + rng.normal(0, 0.1, 100)).tolist(), hard.tolist())
    assert 0.9 < found.low < found.high < 1.1


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "a has the higher accuracy than b: by 10.0 [1.0, 20.0] points."),
        (-0.2, -0.01, "a has the lower accuracy than b: by 10.0 [1.0, 20.0] points."),
        (-0.1, 0.2, "No difference in accuracy is shown between a and b"),
        (0.0, 0.2, "No difference in accuracy is shown between a and b"),
    ],
)
def test_sentence_claims_only_what_is_shown(low, high, said):
    value = -0.1 if high < 0 else 0.1
    assert intervals.says("a", "b", intervals.Interval(value, low, high, 9)).startswith(said)
