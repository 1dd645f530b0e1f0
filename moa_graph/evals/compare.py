"""Comparison of targets on one dataset: quality, cost and latency."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from moa_graph.evals import intervals, pairwise, plots
from moa_graph.evals.answering import answer_all, check_names, failures
from moa_graph.evals.comparison_report import report
from moa_graph.evals.controls import Controls, literature
from moa_graph.evals.datasets import Dataset
from moa_graph.evals.experiment import Experiment
from moa_graph.evals.files import EvalError, EvalFailed, Row, replace, write_json
from moa_graph.evals.intervals import Interval
from moa_graph.evals.judgments import judge_all, total
from moa_graph.evals.targets import Target

_FEWEST = 2
_TAIL = 0.95
_ALL_PAIRS = 3  # with more targets, sentences cover only the pairs with the baseline


def compare(
    targets: Sequence[Target],
    dataset: Dataset,
    folder: Path,
    *,
    judging: Target | None = None,
    baseline: str | None = None,
    controls: Controls | None = None,
    experiment: Experiment | None = None,
    at_once: int = 8,
    quiet: bool = False,
) -> Row:
    """Ask every target every question, and compare the answers.

    A judge compares each target with the baseline in both orders. Without a judge, the scorer of
    each question decides whether an answer is right. Only questions that all targets have answered
    count. The others are listed, and the next run tries them again.

    Args:
        targets: Two or more targets.
        dataset: The questions.
        folder: Output folder for `report.md`, `report.json`, `quality.png`, `pareto.png` and the
            journals from which an interrupted run continues.
        judging: The judge; not needed if the questions have a scorer.
        baseline: Name of the target to compare the others with; the first by default.
        controls: Targets that belong together, to say whether the literature agrees.
        experiment: LangSmith experiment that also stores the answers.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The content of `report.json`: `dataset`, `n`, `baseline`, `measure` (`"accuracy"` or `"win
        rate"`), `targets` (by name: `quality`, `accuracy` if there is a scorer, the judge's
        counts, `cost`, `calls`, `tokens`, `latency`, `first_token`, `characters`, `dominated`),
        `pairs` (paired differences), `judge`, `failures`, `literature` and `says`.

    Raises:
        EvalError: If there are fewer than two targets, two targets have the same name, there is
            neither a scorer nor a judge, no question was answered by all targets, or the judge
            cannot be called.
    """
    names = [target.name for target in targets]
    baseline = baseline or (names[0] if names else "")
    scored = all(item.score for item in dataset.items)
    check(targets, dataset, judging, baseline)
    folder.mkdir(parents=True, exist_ok=True)
    answers = answer_all(
        targets, dataset, folder, experiment=experiment, at_once=at_once, quiet=quiet
    )
    missing = failures(dataset, answers)
    failed = {failure["item"] for failure in missing}
    items = [item for item in dataset.items if item.key not in failed]
    if not items:
        raise EvalFailed(f"No question was answered by all targets ({missing[0]['error']}).")
    questions = {item.key: item.question for item in items}
    found: Row = {
        "dataset": dataset.name,
        "n": len(items),
        "distinct": len(set(questions.values())),
        "asked": len(dataset.items),
        "baseline": baseline,
        "measure": "win rate" if judging else "accuracy",
        "judge": None,
        "failures": missing,
    }
    accuracy = {
        name: {item.key: item.score(rows[item.key]["answer"]) for item in items if item.score}
        for name, rows in answers.items()
    }
    values, details = accuracy, dict[str, Row]()
    if judging:
        values, details, found["judge"] = judge_all(
            judging, baseline, items, answers, folder, at_once=at_once, quiet=quiet
        )
    found["targets"] = {
        name: {
            "quality": _mean_of(values[name], questions),
            **({"accuracy": _mean_of(accuracy[name], questions)} if scored else {}),
            **details.get(name, {}),
            **_spending([rows[item.key] for item in items]),
        }
        for name, rows in answers.items()
    }
    found["pairs"] = _pairs(names, baseline, values, questions)
    found["says"] = _says(found)
    found["literature"] = literature(found, controls) if controls else []
    points, found["cost_axis"] = _points(found)
    beaten = plots.dominated(points)
    for name, row in found["targets"].items():
        row["dominated"] = name in beaten
    _write(found, points, folder)
    if experiment:
        experiment.add_scores(found["measure"], values)
    return found


def check(
    targets: Sequence[Target],
    dataset: Dataset,
    judging: Target | None,
    baseline: str,
    *,
    fewest: int = _FEWEST,
) -> None:
    """Check that the targets can be compared, before any paid request.

    Args:
        targets: The targets.
        dataset: The questions.
        judging: The judge, if there is one.
        baseline: Name of the target to compare the others with.
        fewest: Minimum number of targets.

    Raises:
        EvalError: As for `compare`.
    """
    scored = all(item.score for item in dataset.items)
    if len(targets) < fewest:
        raise EvalError(
            "Give two or more configurations to compare. One is enough if it is a mixture whose "
            "aggregator is a model, which is compared with its controls."
        )
    check_names(targets)
    names = [target.name for target in targets]
    if baseline not in names:
        raise EvalError(f"The baseline {baseline!r} must be one of {', '.join(names)}.")
    if not dataset.items:
        raise EvalError(f"{dataset.name} has no questions.")
    if not scored and judging is None:
        raise EvalError(
            f"{dataset.name} has no scorer: give a judge (--judge provider:model), or say how "
            "answers are compared with the right ones (--scorer exact, number or contains)."
        )
    for target in targets:
        target.check()
    if judging:
        pairwise.check(judging)


def _mean_of(values: Mapping[str, float], questions: Mapping[str, str]) -> Row:
    groups = [questions[key] for key in values]
    return intervals.mean(list(values.values()), groups=groups).as_dict()


def _spending(rows: Sequence[Row]) -> Row:
    """Return means per question: dollars, calls, tokens, seconds and characters."""
    n = len(rows)
    costs = [row["cost"] for row in rows]
    tokens = {
        kind: sum(of[kind] for row in rows for of in row["usage"].values()) / n
        for kind in ("input", "output")
    }
    latencies = sorted(row["latency"] for row in rows)
    firsts = [row["first_token"] for row in rows if row["first_token"] is not None]
    return {
        "cost": None if (spent := total(costs)) is None else spent / n,
        "calls": sum(row["calls"] for row in rows) / n,
        "tokens": tokens if any(row["usage"] for row in rows) else None,
        "latency": {
            "median": statistics.median(latencies),
            "p95": latencies[min(n - 1, int(_TAIL * n))],
        },
        "first_token": statistics.median(firsts) if firsts else None,
        "characters": sum(len(row["answer"]) for row in rows) / n,
    }


def _pairs(
    names: Sequence[str],
    baseline: str,
    values: Mapping[str, Mapping[str, float]],
    questions: Mapping[str, str],
) -> list[Row]:
    pairs = []
    others = [name for name in names if name != baseline]
    for a, b in itertools.combinations([baseline, *others], 2):
        both = [key for key in values[a] if key in values[b]]
        if both:
            found = intervals.difference(
                [values[b][k] for k in both],
                [values[a][k] for k in both],
                groups=[questions[k] for k in both],
            )
            pairs.append({"target": b, "other": a, **found.as_dict()})
    return pairs


def _says(found: Row) -> list[str]:
    unit = found["measure"]
    said = [
        intervals.says(
            pair["target"],
            pair["other"],
            Interval(pair["value"], pair["low"], pair["high"], pair["n"]),
            unit,
        )
        for pair in found["pairs"]
        if pair["other"] == found["baseline"] or len(found["targets"]) <= _ALL_PAIRS
    ]
    if (distinct := found["distinct"]) < found["n"]:
        said.append(
            f"Of {found['n']} questions, {distinct} are different: equal ones count once in the "
            "intervals."
        )
    said += [
        f"The length-controlled win rate of {name} is {why}."
        for name, row in found["targets"].items()
        if (why := row.get("length_controlled_note"))
    ]
    if judge := found["judge"]:
        said.append(judge["position_bias"]["sentence"])
        if without := judge["without_verdict"]:
            said.append(
                f"The judge gave no verdict in {len(without)} cases, which are left out until the "
                f"next run asks again: {'; '.join(without[:10])}."
            )
    calls = {name: round(row["calls"], 2) for name, row in found["targets"].items()}
    if len(set(calls.values())) > 1:
        told = ", ".join(f"{name} {n:g}" for name, n in calls.items())
        said.append(f"Calls a question differ: {told}.")
    return said


def _points(found: Row) -> tuple[list[plots.Point], str]:
    """Return the plot points and the axis label.

    The cost is in dollars if all are known and any is above 0, else in tokens, else in calls.
    """
    rows = found["targets"]
    costs = {name: row["cost"] for name, row in rows.items()}
    if all(cost is not None for cost in costs.values()) and any(costs.values()):
        label = "US dollars a question"
    elif all(row["tokens"] for row in rows.values()):
        costs = {name: sum(row["tokens"].values()) for name, row in rows.items()}
        label = "tokens a question, read and written"
    else:
        costs = {name: row["calls"] for name, row in rows.items()}
        label = "calls of models a question"
    return [plots.Point(n, costs[n], Interval(**row["quality"])) for n, row in rows.items()], label


def _write(found: Row, points: Sequence[plots.Point], folder: Path) -> None:
    write_json(folder / "report.json", found)
    replace(folder / "report.md", report(found) + "\n\n![](quality.png)\n\n![](pareto.png)\n")
    judged = found["measure"] == "win rate"
    of = f"win rate against {found['baseline']}, %" if judged else "accuracy, %"
    quality = {point.name: point.quality for point in points}
    figure = plots.rates(quality, label=of, half=0.5 if judged else None, title=found["dataset"])
    plots.save(figure, folder / "quality.png")
    figure = plots.pareto(points, quality=of, cost=found["cost_axis"], title=found["dataset"])
    plots.save(figure, folder / "pareto.png")
