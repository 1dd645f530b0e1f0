from __future__ import annotations

import random

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

mpl.use("agg")

from moa_graph.evals import plots
from moa_graph.evals.intervals import Interval

NAMES = [
    "together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "moa",
    "moa-lite",
    "self-moa",
    "moa-gpt4o",
    "openai:gpt-4o",
    "critics and aggregator",
    "local-vote",
    "three layers, six proposers",
    "together:zai-org/GLM-5.2",
    "anthropic:claude-sonnet-4.5",
    "ranked",
]


def point(name, cost, quality):
    return plots.Point(name, cost, Interval(quality, quality - 0.05, quality + 0.05, 200))


def labels(figure):
    figure.canvas.draw()
    names = set(plots._labels(NAMES))
    return [t for t in figure.axes[0].texts if t.get_text() in names]


def test_dollars_in_names_are_dollars(tmp_path):
    points = [point(r"cheap $\foo$ x", 1, 0.5), point("$5 and $", 2, 0.6)]
    figure = plots.pareto(points, quality="$", cost="US $", title=r"$\bar")
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == [r"cheap \$\foo\$ x", r"\$5 and \$"]
    plots.save(figure, tmp_path / "p.png")
    rates = {p.name: p.quality for p in points}
    plots.save(plots.rates(rates, label="$", title="$x$"), tmp_path / "r.png")
    scores = {p.name: {"$a$": 1.0, "b": 2.0, "c": 3.0} for p in points}
    plots.save(plots.radar(scores, lowest=0, highest=5, title="$x$"), tmp_path / "s.png")


def test_long_names_can_still_be_told_apart():
    names = [f"together:meta-llama/Meta-Llama-3.1-{n}B-Instruct-Turbo" for n in (8, 70, 405)]
    assert plots._labels(names) == [name.rpartition("/")[2] for name in names]
    assert plots._labels(["x" * 99]) == ["x" * 15 + "…" + "x" * 16]
    assert len(set(plots._labels([f"{'x' * 40}{i}{'x' * 40}" for i in range(3)]))) == 3


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spread", ["wide", "narrow", "one point", "two columns"])
def test_labels_of_twelve_configurations_do_not_overlap(seed, spread):
    rng = random.Random(seed)
    points = []
    for name in NAMES:
        cost, quality = {
            "wide": (rng.uniform(0.001, 0.1), rng.uniform(0.2, 0.8)),
            "narrow": (rng.uniform(0.01, 0.011), rng.uniform(0.5, 0.51)),
            "one point": (0.01, 0.5),
            "two columns": (rng.choice([1, 4]), rng.uniform(0.1, 0.3)),
        }[spread]
        points.append(point(name, cost, quality))
    figure = plots.pareto(points, quality="win rate, %", cost="US dollars")
    texts = labels(figure)
    assert len(texts) == 12
    boxes = [mpl.text.Text.get_window_extent(text) for text in texts]  # without the lines
    overlapping = [
        (a.get_text(), b.get_text())
        for i, a in enumerate(texts)
        for j, b in enumerate(texts[:i])
        if boxes[i].overlaps(boxes[j])
    ]
    assert not overlapping
    mpl.pyplot.close(figure)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=9))
def test_dominated_is_whoever_another_one_beats(pairs):
    points = [point(str(i), c, q / 10) for i, (c, q) in enumerate(pairs)]
    beaten = plots.dominated(points)
    assert len(beaten) < len(points)
    for p in points:
        better = [
            q
            for q in points
            if q.cost <= p.cost
            and q.quality.value >= p.quality.value
            and (q.cost, q.quality.value) != (p.cost, p.quality.value)
        ]
        assert (p.name in beaten) == bool(better)


def test_dominated_configurations_are_marked():
    figure = plots.pareto(
        [point("moa", 1, 0.6), point("ranked", 2, 0.5)], quality="accuracy, %", cost="$"
    )
    colours = {t.get_text(): t.get_color() for t in labels(figure)}
    assert colours["ranked"] != colours["moa"]
    entries = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert entries == ["Pareto front", "dominated"]
    mpl.pyplot.close(figure)


def test_figures_are_written(tmp_path):
    before = mpl.pyplot.get_fignums()
    intervals = {name: Interval(0.5, 0.4, 0.6, 10) for name in NAMES[:3]}
    figure = plots.rates(intervals, label="win rate, %", half=0.5, title="questions")
    assert plots.save(figure, tmp_path / "rates.png").stat().st_size > 5000
    scores = {"moa": {"writing": 9.0, "math": 7.0, "coding": 8.0}, "single": {"writing": 8.0}}
    figure = plots.radar(scores, lowest=0, highest=10, title="MT-Bench")
    assert plots.save(figure, tmp_path / "radar.png").stat().st_size > 5000
    assert mpl.pyplot.get_fignums() == before
