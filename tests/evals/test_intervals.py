from __future__ import annotations

import itertools
import os
import sys

import numpy as np
import pytest
from scipy import stats

from moa_graph.evals import intervals
from moa_graph.evals.length_control import length_controlled


@pytest.mark.parametrize("right", [0, 1, 3, 10])
def test_interval_of_a_share_is_clopper_and_pearsons(right):
    found = intervals.mean([1.0] * right + [0.0] * (10 - right))
    exact = stats.binomtest(right, 10).proportion_ci(0.95, method="exact")
    assert found.value == right / 10
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found == intervals.mean([1.0] * right + [0.0] * (10 - right))


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (9, 3), (30, 20)])
def test_interval_of_a_difference_without_ties_is_that_of_the_sign_test(wins, losses):
    found = intervals.difference([1] * wins + [0] * losses, [0] * wins + [1] * losses)
    exact = stats.binomtest(wins, wins + losses).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((2 * exact.low - 1, 2 * exact.high - 1))


def test_a_claim_agrees_with_the_exact_test():
    for wins, losses in itertools.product(range(12), range(12)):
        if wins + losses:
            found = intervals.difference([1] * wins + [0] * losses, [0] * wins + [1] * losses)
            p = stats.binomtest(wins, wins + losses).pvalue
            assert (found.low > 0 or found.high < 0) == (p <= 0.05)


def test_equal_answers_have_no_difference_but_leave_a_doubt():
    found = intervals.difference([1, 0, 1], [1, 0, 1])
    assert found.value == 0
    assert -1 < found.low == -found.high < 0
    more = intervals.difference([1, 0] * 100, [1, 0] * 100)
    assert 0 < more.high < 0.02


def test_values_that_are_all_the_same_are_no_certainty():
    ties = intervals.mean([0.5] * 8)
    assert (ties.low, ties.high) == pytest.approx((0.315, 0.685), abs=1e-3)
    unlike = intervals.mean([0.0] * 8, highest=100)
    assert (unlike.low, unlike.high) == pytest.approx((0, 36.9), abs=0.1)


@pytest.mark.parametrize("values", [[1.2], [-0.1], [float("nan")]])
def test_values_out_of_bounds_are_refused(values):
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        intervals.mean(values)


def test_nothing_is_claimed_of_a_few_questions():
    assert "too few" in intervals.says("a", "b", intervals.difference([1.0], [0.5]))
    one, other = intervals.difference([1] * 9, [0] * 9), intervals.difference([0] * 9, [1] * 9)
    assert (one.low, one.high) == (-other.high, -other.low)
    ties = [1, 0.5, 0, 0.5, 0.5, 1, 0.75]
    one, other = intervals.mean(ties), intervals.mean([1 - tie for tie in ties])
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))


def test_difference_is_paired():
    rng = np.random.default_rng(3)
    hard = rng.uniform(0, 0.7, 100)
    found = intervals.difference((hard + 0.2 + rng.normal(0, 0.01, 100)).tolist(), hard.tolist())
    assert 0.15 < found.low < 0.2 < found.high < 0.25


def test_repeated_questions_count_once():
    values, groups = [1, 1, 0, 0.5], ["a", "a", "b", "a"]
    assert intervals.by_group(values, groups) == pytest.approx([2.5 / 3, 0])
    found = intervals.mean(values, groups=groups)
    assert found.n == 2
    assert found == intervals.mean([2.5 / 3, 0])
    tenfold = intervals.difference([1, 0, 1] * 10, [0, 0, 0] * 10, groups=[1, 2, 3] * 10)
    assert tenfold == intervals.difference([1, 0, 1], [0, 0, 0])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "a has the higher accuracy than b: by 10.0 [1.0, 20.0] points."),
        (-0.2, -0.01, "a has the lower accuracy than b: by 10.0 [1.0, 20.0] points."),
        (-0.1, 0.2, "No difference in accuracy between a and b is statistically significant"),
        (0.0, 0.2, "No difference in accuracy between a and b is statistically significant"),
    ],
)
def test_sentence_claims_only_what_is_shown(low, high, said):
    value = -0.1 if high < 0 else 0.1
    assert intervals.says("a", "b", intervals.Interval(value, low, high, 9)).startswith(said)


@pytest.mark.parametrize("gap", [400, -400])
@pytest.mark.parametrize("rate", [0.5, 0.9, 1.0])
def test_length_is_not_separated_from_quality_where_lengths_do_not_overlap(gap, rate):
    rng = np.random.default_rng(0)
    lengths = 1000 + rng.normal(gap, 40, 100)
    found, why = length_controlled(rng.binomial(1, rate, 100), lengths, [1000.0] * 100)
    assert found is None
    told = "not longer" if gap > 0 else "not shorter"
    assert f"not available: in 0 of 100 questions the answer is {told}" in why


@pytest.mark.parametrize("n", [1, 5, 9])
def test_length_is_not_controlled_with_few_questions(n):
    found, why = length_controlled([1.0] * n, range(n), [n / 2] * n)
    assert found is None
    assert "10 are needed" in why


@pytest.mark.parametrize("wins", [0.0, 0.5, 1.0])
def test_length_control_of_equal_lengths_is_the_plain_rate(wins):
    found, why = length_controlled([wins] * 40, [7.0] * 40, [7.0] * 40)
    assert why is None
    assert found.value == pytest.approx(wins, abs=0.02)
    assert found.low <= wins + 0.02
    assert found.high >= wins - 0.02


SIZES = (10, 20, 50, 200, 500)
RUNS = int(os.environ.get("MOA_SIMULATIONS", "300"))  # 10,000 for the table of the guide
SHARES = {  # shares of losses, ties and wins without and with a difference
    "no ties": ((0.5, 0, 0.5), (0.35, 0, 0.65)),
    "half ties": ((0.25, 0.5, 0.25), (0.15, 0.5, 0.35)),
    "mostly ties": ((0.05, 0.9, 0.05), (0.02, 0.9, 0.08)),
    "skewed": ((0.02, 0.96, 0.02), (0.0, 0.8, 0.2)),
}
KINDS = (*SHARES, "clusters", "unequal lengths")
TESTS = len(KINDS) * len(SIZES) * 3  # coverage without and with a difference, and false claims


def of_shares(rng, n, kind, *, different):
    """Comparisons of which the exact distribution is known."""
    shares = SHARES[kind][different]
    known: dict[tuple[float, ...], intervals.Interval] = {}
    for sample in rng.choice([-1.0, 0.0, 1.0], (RUNS, n), p=shares):
        key = tuple(sorted(sample))
        if key not in known:
            known[key] = intervals.mean(key, lowest=-1.0)
        yield known[key], shares[2] - shares[0]


def of_clusters(rng, n, *, different):
    """Questions that are asked one to five times, with the same result most of the time."""
    gain = 0.2 if different else 0.0
    shares = [0.25 - gain / 2, 0.5, 0.25 + gain / 2]
    for _ in range(RUNS):
        groups = np.repeat(np.arange(n), rng.integers(1, 6, n))
        tendency = rng.choice([-1.0, 0.0, 1.0], n, p=shares)[groups]
        alone = rng.choice([-1.0, 0.0, 1.0], len(groups), p=shares)
        values = np.where(rng.random(len(groups)) < 0.8, tendency, alone)
        yield intervals.mean(values.tolist(), lowest=-1.0, groups=groups.tolist()), gain


def of_lengths(rng, n, *, different):
    """Answers that are longer by 0.7 standard deviations, and a judge who likes long ones."""
    rate = 0.8 if different else 0.5
    for _ in range(RUNS):
        gaps = rng.normal(0.7, 1, n)
        odds = np.log(rate / (1 - rate)) + 1.5 * np.tanh(gaps)
        wins = rng.binomial(1, 1 / (1 + np.exp(-odds)))
        found, _ = length_controlled(wins, 1000 + 300 * gaps, [1000.0] * n)
        if found is not None:
            half = {"value": found.value - 0.5, "low": found.low - 0.5, "high": found.high - 0.5}
            yield intervals.Interval(**half, n=found.n), rate - 0.5


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_in_simulations(kind, capsys):
    """Coverage of 95 % and at most 5 % false claims, by Holm's test over the table of all kinds."""
    rng = np.random.default_rng(KINDS.index(kind))
    lines = []
    for n, different in itertools.product(SIZES, (False, True)):
        if kind in SHARES:
            found = list(of_shares(rng, n, kind, different=different))
        else:
            of = of_clusters if kind == "clusters" else of_lengths
            found = list(of(rng, n, different=different))
        inside = sum(one.low <= truth <= one.high for one, truth in found)
        claims = sum("No difference" not in intervals.says("a", "b", one) for one, _ in found)
        truth = "difference" if different else "null"
        if not found:
            lines.append(f"| {kind} | {truth} | {n} | not available | – | 0 |")
            continue
        lines.append(
            f"| {kind} | {truth} | {n} | {inside / len(found):.3f} | {claims / len(found):.3f} | "
            f"{len(found)} |"
        )
        coverage = stats.binomtest(inside, len(found), 0.95, alternative="less")
        assert coverage.pvalue > 0.05 / TESTS, lines
        if not different:
            false = stats.binomtest(claims, len(found), 0.05, alternative="greater")
            assert false.pvalue > 0.05 / TESTS, lines
    with capsys.disabled():
        head = "| kind | truth | n | coverage | claims | runs |\n|---|---|--:|--:|--:|--:|"
        sys.stdout.write("\n".join(["", head, *lines, ""]))


@pytest.mark.parametrize("n", SIZES)
def test_no_interval_is_much_wider_than_the_exact_one(n):
    """For shares and for differences without ties the exact interval is known: equal widths."""
    for right in {0, 1, n // 4, n // 2, n}:
        exact = stats.binomtest(right, n).proportion_ci(0.95, method="exact")
        share = intervals.mean([1.0] * right + [0.0] * (n - right))
        both = intervals.difference(
            [1.0] * right + [0.0] * (n - right), [0.0] * right + [1.0] * (n - right)
        )
        assert share.high - share.low <= 1.15 * (exact.high - exact.low)
        assert both.high - both.low <= 1.15 * 2 * (exact.high - exact.low)
