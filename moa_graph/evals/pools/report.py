"""Report and plot of a study of pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moa_graph.evals import plots
from moa_graph.evals.files import Row, digest
from moa_graph.evals.intervals import Interval
from moa_graph.evals.pools.choosing import ASKED, PICKED, RANK, SYNTHESIS
from moa_graph.evals.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 12  # models in the table
_OF_THE_GAIN = (
    "The gain was measured on questions that neither the mixture nor the single model was chosen "
    "on, for mixtures that were chosen in this way. The chosen mixture has a gain in the interval "
    "in 95 % of repetitions on as many other questions."
)
_OF_THE_CEILING = (
    "No strategy that picks an answer of the pool can exceed its ceiling; the bound holds for as "
    "many other questions. Accuracies are of pools of this kind and size that were chosen on other "
    "questions."
)


def report(found: Row) -> str:
    """Return a study as Markdown: the recommendation, the models, the pools, and what is missing.

    Args:
        found: The result of `study`.
    """
    told = found["recommendation"]
    repeated = "" if found["distinct"] == found["n"] else f" ({found['distinct']} different)"
    parts = [
        f"# {found['set']}: {found['n']} questions{repeated}, {len(found['models'])} models",
        f"**{told['sentence']}**",
        _OF_THE_GAIN,
        _models(found["models"][:_SHOWN]),
    ]
    if more := found["models"][_SHOWN:]:
        parts.append(f"… and {len(more)} more models (--json has all).")
    parts += [_OF_THE_CEILING, _pools(found["pools"])]
    if found["samples"]:
        parts.append(_samples(told["best"], found["samples"]))
    parts.append("\n".join(f"- {sentence}" for sentence in missing(found)))
    return "\n\n".join(parts)


def _models(rows: Sequence[Row]) -> str:
    return table(
        ["model", "accuracy, %", "tokens", "error correlation with the best"],
        [
            [
                row["model"],
                _percent(row["accuracy"]),
                _rounded(row["tokens"]),
                row["correlation"],
            ]
            for row in rows
        ],
    )


def _pools(rows: Sequence[Row]) -> str:
    strategies = [
        name for name in (*PICKED, *ASKED) if any(row["accuracy"][name] is not None for row in rows)
    ]
    return table(
        [
            "pool",
            "chosen as",
            "ceiling, %",
            "bound, %",
            "error correlation",
            *(f"{name}, %" for name in strategies),
            "× tokens, without a writer's",
        ],
        [
            [
                ", ".join(row["members"]),
                row["chosen"],
                f"{100 * row['ceiling']:.1f}",
                f"{100 * row['bound']:.1f}",
                row["correlation"],
                *(_percent(row["accuracy"][name]) for name in strategies),
                None if row["times"] is None else f"{row['times']:.1f}",
            ]
            for row in _merged(rows)
        ],
    )


def _samples(best: str, rows: Sequence[Row]) -> str:
    return table(
        ["self-consistency", "accuracy, %", "tokens"],
        [
            [
                f"{best}, {row['answers']} answers",
                _percent(row["accuracy"]),
                _rounded(row["tokens"]),
            ]
            for row in rows
        ],
    )


def _merged(pools: Sequence[Row]) -> list[Row]:
    """Return each pool once, with all ways to choose it that have equal results."""
    found: dict[str, Row] = {}
    for row in pools:
        key = digest([row["members"], row["accuracy"]])
        chosen = f"{found[key]['chosen']}, {row['chosen']}" if key in found else row["chosen"]
        found[key] = {**row, "chosen": chosen}
    return list(found.values())


def missing(found: Row) -> list[str]:
    """Return sentences about what was not evaluated, with the reasons."""
    said = []
    first = found["pools"][0]["accuracy"]
    if first["central"] is None:
        said.append(
            "central: not evaluated, as the full replies of some models are not recorded; "
            "name models that have them (--models)."
        )
    if not any(row["accuracy"][RANK] or row["accuracy"][SYNTHESIS] for row in found["pools"]):
        said.append("rank and synthesis: not evaluated, as no model was asked.")
    if not found["samples"]:
        best = found["recommendation"]["best"]
        said.append(
            f"self-consistency of {best}: not evaluated, as it answered each question once."
        )
    if found["left_out"]:
        told = ", ".join(f"{name} ({n})" for name, n in found["left_out"].items())
        said.append(f"left out, as they have too few answers: {told}; name models with --models.")
    if any(row["tokens"] is None for row in found["models"]):
        said.append("tokens: unknown for the models whose full replies are not recorded.")
    return said


def figure(found: Row) -> Figure:
    """Plot quality against tokens, with the ceiling of each pool.

    Args:
        found: The result of `study`.

    Returns:
        A figure with the single models of the pools, the best strategy for each size of pool, and
        self-consistency. Without tokens of all models, the axis has calls of models.
    """
    members = {name for row in found["pools"] for name in row["members"]}
    models = [row for row in found["models"] if row["model"] in members]
    best: dict[int, tuple[Row, str]] = {}
    for row in found["pools"]:
        for strategy, accuracy in row["accuracy"].items():
            now = best.get(row["size"])
            if accuracy and (
                now is None or accuracy["value"] > now[0]["accuracy"][now[1]]["value"]
            ):
                best[row["size"]] = (row, strategy)
    known = all(row["tokens"] is not None for row in models)
    points = [
        plots.Point(row["model"], row["tokens"] if known else 1, Interval(**row["accuracy"]))
        for row in models
    ]
    ceilings = {}
    for size, (row, strategy) in best.items():
        name = f"{size} by {strategy}"
        more = row["asked_tokens"].get(strategy, 0)
        cost = row["tokens"] + more if known else size + bool(more)
        points.append(plots.Point(name, cost, Interval(**row["accuracy"][strategy])))
        ceilings[name] = row["ceiling"]
    points += [
        plots.Point(
            f"self-consistency, {row['answers']}",
            row["tokens"] if known else row["answers"],
            Interval(**row["accuracy"]),
        )
        for row in found["samples"]
    ]
    return plots.pareto(
        points,
        quality="accuracy, %",
        cost="tokens a question, read and written" if known else "calls of models a question",
        title=found["set"],
        ceilings=ceilings,
    )


def _percent(found: Any) -> str | None:
    return None if found is None else Interval(**found).percent()


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
