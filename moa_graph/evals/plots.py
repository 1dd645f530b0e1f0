"""Figures: win rates with intervals, quality against cost, and radar plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_graph.evals.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _SOFT, _GRID = "#1c2b33", "#7b8a93", "#e2e7ea"
_COLOURS = ("#1f6f78", "#c8553d", "#6a4c93", "#e09f3e", "#33658a", "#5b8c5a")
_LOG_FROM = 8  # ratio of highest to lowest cost above which the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A configuration in a plot of quality against cost."""

    name: str
    cost: float
    quality: Interval


def dominated(points: Sequence[Point]) -> set[str]:
    """Return names of points that another point beats in quality or cost, and equals or beats in
    the other.
    """
    return {
        p.name
        for p in points
        if any(
            q.cost <= p.cost
            and q.quality.value >= p.quality.value
            and (q.cost < p.cost or q.quality.value > p.quality.value)
            for q in points
        )
    }


def pareto(
    points: Sequence[Point],
    *,
    quality: str,
    cost: str,
    title: str = "",
    ceilings: Mapping[str, float] | None = None,
) -> Figure:
    """Plot quality against cost with the Pareto front; dominated points are grey and hollow.

    Args:
        points: One or more points.
        quality: Label of the vertical axis; values are shares of 1 and are shown in percent.
        cost: Label of the horizontal axis, with the unit.
        title: Title above the plot.
        ceilings: Quality that points cannot exceed, by name: a line above each.
    """
    figure, axes = _figure(9.5, 6, title)
    beaten = dominated(points)
    best = sorted((p for p in points if p.name not in beaten), key=lambda p: p.cost)
    axes.plot(
        [p.cost for p in best],
        [100 * p.quality.value for p in best],
        color=_COLOURS[0],
        linewidth=1.2,
        drawstyle="steps-post",
        zorder=2,
        label="Pareto front",
    )
    for kept, colour, fill, label in (
        (True, _COLOURS[0], _COLOURS[0], None),
        (False, _SOFT, "white", "dominated"),
    ):
        some = [p for p in points if (p.name not in beaten) is kept]
        if some:
            axes.errorbar(
                [p.cost for p in some],
                [100 * p.quality.value for p in some],
                yerr=_arms([p.quality for p in some]),
                fmt="o",
                color=colour,
                markerfacecolor=fill,
                markersize=7,
                elinewidth=1,
                alpha=0.9,
                zorder=3,
                label=label,
            )
    _draw_ceilings(axes, points, ceilings or {})
    costs = [p.cost for p in points if p.cost > 0]
    if len(costs) == len(points) and max(costs) > _LOG_FROM * min(costs):
        axes.set_xscale("log")
    axes.margins(x=0.18, y=0.15)
    axes.set_xlabel(_plain(cost))
    axes.set_ylabel(_plain(quality))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _label(figure, axes, points, beaten)
    return figure


def _draw_ceilings(axes: Axes, points: Sequence[Point], ceilings: Mapping[str, float]) -> None:
    """Draw a dash at each ceiling, and a dotted line from its point."""
    some = [p for p in points if p.name in ceilings]
    if not some:
        return
    tops = [100 * ceilings[p.name] for p in some]
    places = [p.cost for p in some]
    axes.vlines(
        places, [100 * p.quality.value for p in some], tops, color=_SOFT, linestyle=":", zorder=1
    )
    axes.plot(
        places,
        tops,
        linestyle="",
        marker="_",
        markersize=14,
        color=_COLOURS[1],
        zorder=3,
        label="ceiling of a pool",
    )


def _label(figure: Figure, axes: Axes, points: Sequence[Point], beaten: set[str]) -> None:
    """Write names next to points, or in a column with connecting lines if names overlap."""
    from adjustText import adjust_text  # noqa: PLC0415 - needs [evals]
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    places = [(p.cost, 100 * p.quality.value) for p in points]
    names = _labels([p.name for p in points])
    line = {"arrowstyle": "-", "color": _SOFT, "linewidth": 0.6}
    looks: list[dict[str, Any]] = [
        {
            "fontsize": 9,
            "color": _SOFT if p.name in beaten else _INK,
            "path_effects": [withStroke(linewidth=3, foreground="white")],
            "zorder": 5,
        }
        for p in points
    ]
    texts = [
        axes.text(x, y, name, **look)
        for name, (x, y), look in zip(names, places, looks, strict=True)
    ]
    figure.canvas.draw()
    adjust_text(
        texts,
        x=[x for x, _ in places],
        y=[y for _, y in places],
        ax=axes,
        expand=(1.15, 1.5),
        iter_lim=500,
        arrowprops=line,
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    if not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]):
        return
    for drawn in (*texts, *axes.patches):
        drawn.remove()
    order = sorted(range(len(points)), key=lambda i: places[i][1])
    for rank, i in enumerate(order):
        axes.annotate(
            names[i],
            xy=places[i],
            xytext=(1.03, (rank + 0.5) / len(points)),
            textcoords="axes fraction",
            va="center",
            arrowprops={**line, "relpos": (0, 0.5)},
            annotation_clip=False,
            **looks[i],
        )


def rates(
    found: Mapping[str, Interval],
    *,
    label: str,
    half: float | None = None,
    title: str = "",
) -> Figure:
    """Plot values with their intervals, the highest on top.

    Args:
        found: Values by name: shares of 1, shown in percent.
        label: Label of the axis.
        half: Position of a vertical line, such as 0.5 for the win rate of the baseline.
        title: Title above the plot.
    """
    names = sorted(found, key=lambda name: found[name].value)
    figure, axes = _figure(8, 1.4 + 0.42 * len(names), title)
    values = [found[name] for name in names]
    axes.errorbar(
        [100 * v.value for v in values],
        range(len(names)),
        xerr=_arms(values),
        fmt="o",
        color=_COLOURS[0],
        markersize=7,
        capsize=3,
        elinewidth=1.4,
    )
    if half is not None:
        axes.axvline(100 * half, color=_COLOURS[1], linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), _labels(names, 44))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(_plain(label))
    return figure


def radar(
    found: Mapping[str, Mapping[str, float]], *, lowest: float, highest: float, title: str = ""
) -> Figure:
    """Plot scores by category or skill, with one line for each model.

    Args:
        found: Scores by model and category; a missing category is a gap in the line.
        lowest: Score at the centre.
        highest: Score at the edge.
        title: Title above the plot.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 - needs [evals]

    names = list(dict.fromkeys(name for scores in found.values() for name in scores))
    angles = [2 * math.pi * i / len(names) for i in range(len(names))]
    figure = plt.figure(figsize=(7.4, 7))
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_offset(math.pi / 2)  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    for i, (model, scores) in enumerate(found.items()):
        values = [scores.get(name, math.nan) for name in names]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot([*angles, angles[0]], [*values, values[0]], color=colour, label=_plain(model))
        axes.fill([*angles, angles[0]], [*values, values[0]], color=colour, alpha=0.08)
    axes.set_xticks(angles, [_plain(name) for name in names], color=_INK)
    axes.set_ylim(lowest, highest)
    axes.tick_params(axis="y", colors=_SOFT, labelsize=8)
    axes.tick_params(axis="x", pad=14)
    axes.grid(color=_GRID)
    axes.spines["polar"].set_color(_GRID)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)
    if title:
        axes.set_title(_plain(title), color=_INK, pad=24)
    figure.tight_layout()
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Save a figure to a file and close it."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - needs [evals]

    figure.savefig(path, dpi=144, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return path


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt  # noqa: PLC0415 - needs [evals]

    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(colors=_INK)
    axes.grid(color=_GRID, zorder=0)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(_plain(title), color=_INK, loc="left")
    return figure, axes


def _arms(values: Sequence[Interval]) -> list[list[float]]:
    return [
        [100 * max(0.0, v.value - v.low) for v in values],
        [100 * max(0.0, v.high - v.value) for v in values],
    ]


def _labels(names: Sequence[str], longest: int = 32) -> list[str]:
    """Return shortened names that are still unique."""
    short = [_shortened(name, longest) for name in names]
    if len(set(short)) < len(set(names)) and longest < max(map(len, names)):
        return _labels(names, longest + 8)
    return [_plain(name) for name in short]


def _shortened(name: str, longest: int) -> str:
    if len(name) > longest:
        name = name.rpartition("/")[2]  # the model name matters more than its host
    if len(name) > longest:
        name = f"{name[: longest // 2 - 1]}…{name[-(longest - longest // 2) :]}"
    return name


def _plain(text: str) -> str:
    """Escape dollar signs; matplotlib parses text between two of them as a formula."""
    return text.replace("$", r"\$")
