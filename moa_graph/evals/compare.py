"""Comparison of targets on one dataset: quality, cost and latency."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from moa_graph.calling.sync import run
from moa_graph.evals import intervals, pairwise, plots
from moa_graph.evals.comparison_report import report
from moa_graph.evals.datasets import Dataset, Item
from moa_graph.evals.experiment import Experiment
from moa_graph.evals.files import EvalError, EvalFailed, Journal, Row, digest, replace, write_json
from moa_graph.evals.intervals import Interval
from moa_graph.evals.pairwise import ORDERS, Pair
from moa_graph.evals.targets import Target, unique_names
from moa_graph.evals.workers import do_all

_FEWEST = 2
_LONGEST_NAME = 80
_TAIL = 0.95
_ALL_PAIRS = 3  # with more targets, sentences cover only the pairs with the baseline


def compare(
    targets: Sequence[Target],
    dataset: Dataset,
    folder: Path,
    *,
    judging: Target | None = None,
    baseline: str | None = None,
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
        experiment: LangSmith experiment that also stores the answers.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The content of `report.json`: `dataset`, `n`, `baseline`, `measure` (`"accuracy"` or `"win
        rate"`), `targets` (by name: `quality`, `accuracy` if there is a scorer, the judge's
        counts, `cost`, `calls`, `tokens`, `latency`, `first_token`, `characters`, `dominated`),
        `pairs` (paired differences), `judge`, `failures` and `says`.

    Raises:
        EvalError: If there are fewer than two targets, two targets have the same name, there is
            neither a scorer nor a judge, no question was answered by all targets, or the judge
            cannot be called.
    """
    names = [target.name for target in targets]
    baseline = baseline or (names[0] if names else "")
    scored = all(item.score for item in dataset.items)
    _check(targets, dataset, judging, baseline, scored=scored)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        # Open all journals first: a journal with other settings must fail before paid requests.
        journals = [opened.enter_context(_journal(target, folder)) for target in targets]
        answers = {
            target.name: _answers(
                target, dataset, journal, experiment, at_once=at_once, quiet=quiet
            )
            for target, journal in zip(targets, journals, strict=True)
        }
    failures = _failures(dataset, answers)
    failed = {failure["item"] for failure in failures}
    items = [item for item in dataset.items if item.key not in failed]
    if not items:
        raise EvalFailed(f"No question was answered by all targets ({failures[0]['error']}).")
    found: Row = {
        "dataset": dataset.name,
        "n": len(items),
        "asked": len(dataset.items),
        "baseline": baseline,
        "measure": "win rate" if judging else "accuracy",
        "judge": None,
        "failures": failures,
    }
    accuracy = {
        name: {item.key: item.score(rows[item.key]["answer"]) for item in items if item.score}
        for name, rows in answers.items()
    }
    values, details = accuracy, dict[str, Row]()
    if judging:
        values, details, found["judge"] = _judged(
            judging, baseline, items, answers, folder, at_once=at_once, quiet=quiet
        )
    found["targets"] = {
        name: {
            "quality": _mean_of(values[name]),
            **({"accuracy": _mean_of(accuracy[name])} if scored else {}),
            **details.get(name, {}),
            **_spending([rows[item.key] for item in items]),
        }
        for name, rows in answers.items()
    }
    found["pairs"] = _pairs(names, baseline, values)
    found["says"] = _says(found)
    points, found["cost_axis"] = _points(found)
    beaten = plots.dominated(points)
    for name, row in found["targets"].items():
        row["dominated"] = name in beaten
    _write(found, points, folder)
    if experiment:
        experiment.add_scores(found["measure"], values)
    return found


def _failures(dataset: Dataset, answers: Mapping[str, Mapping[str, Row]]) -> list[Row]:
    return [
        {"target": name, "item": item.key, "error": why}
        for name, rows in answers.items()
        for item in dataset.items
        if (why := rows.get(item.key, {"error": "not asked"}).get("error"))
    ]


def _check(
    targets: Sequence[Target],
    dataset: Dataset,
    judging: Target | None,
    baseline: str,
    *,
    scored: bool,
) -> None:
    """Check that the targets can be compared, before any paid request."""
    if len(targets) < _FEWEST:
        raise EvalError("Give two or more configurations to compare.")
    unique_names(targets)
    names = [target.name for target in targets]
    files = [file_name(name) for name in names]
    if alike := [name for name in names if files.count(file_name(name)) > 1]:
        raise EvalError(
            f"The names {alike[0]!r} and {alike[1]!r} lead to the same file name: change one of "
            "them (name = …)."
        )
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


def _answers(
    target: Target,
    dataset: Dataset,
    journal: Journal,
    experiment: Experiment | None,
    *,
    at_once: int,
    quiet: bool,
) -> dict[str, Row]:
    items = dataset.by_content

    async def ask(item: Item) -> Row:
        return await target.ask(item.messages)

    if experiment:
        experiment.answer(target, dataset, ask, journal, at_once=at_once)
    run(do_all(items, ask, journal, title=target.name, at_once=at_once, quiet=quiet))
    rows = {item.key: journal.rows[key] for key, item in items.items() if key in journal.rows}
    return {
        key: row if row.get("error") else {**row, "cost": target.cost(row)}
        for key, row in rows.items()
    }


def _journal(target: Target, folder: Path) -> Journal:
    about = {"target": target.name, "configuration": target.digest}
    return Journal(folder / f"answers-{file_name(target.name)}.jsonl", about)


def file_name(name: str) -> str:
    """Convert the name of a target to a file name."""
    plain = re.sub(r"[^\w.@-]+", "_", name)
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}-{digest(name)}"


def _mean_of(values: Mapping[str, float]) -> Row:
    return intervals.mean(list(values.values())).as_dict()


def _judged(
    judging: Target,
    baseline: str,
    items: Sequence[Item],
    answers: Mapping[str, Mapping[str, Row]],
    folder: Path,
    *,
    at_once: int,
    quiet: bool,
) -> tuple[dict[str, dict[str, float]], dict[str, Row], Row]:
    """Return the preferences by target and item, the details by target, and the judge's record."""
    values = {baseline: {item.key: 0.5 for item in items}}
    details: dict[str, Row] = {}
    firsts: list[float] = []
    cost: list[float | None] = []
    without: list[str] = []
    for name in answers:
        if name == baseline:
            continue
        mine = {item.key: answers[name][item.key]["answer"] for item in items}
        its = {item.key: answers[baseline][item.key]["answer"] for item in items}
        same = {key for key in mine if mine[key].strip() == its[key].strip()}
        pairs = {
            (item.key, order): Pair(
                item.text, item.reference, mine[item.key], its[item.key], answer_first=not order
            )
            for item in items
            if item.key not in same
            for order in range(len(ORDERS))
        }
        keys = {place: digest(asdict(pair)) for place, pair in pairs.items()}

        async def judge(pair: Pair) -> Row:
            return await pairwise.compare(judging, pair)

        path = folder / f"judgments-{file_name(name)}-{file_name(baseline)}.jsonl"
        about = {"judge": judging.digest, "target": name, "baseline": baseline}
        with Journal(path, about) as journal:
            title = f"{name} against {baseline}"
            asked = {keys[place]: pair for place, pair in pairs.items()}
            run(do_all(asked, judge, journal, title=title, at_once=at_once, quiet=quiet))
            done = {place: row for place, key in keys.items() if (row := journal.result(key))}
            cost += [judging.cost(journal.rows[key]) for key in asked if key in journal.rows]
        both = {
            item.key: [0.5, 0.5] if item.key in same else pairwise.complete(done, item.key)
            for item in items
        }
        without += [f"{name}, item {key}" for key, row in both.items() if row is None]
        known = {key: row for key, row in both.items() if row is not None}
        if not known:
            raise EvalFailed(f"The judge {judging.name} gave no verdict on any answer of {name}.")
        firsts += [row["first"] for (key, _), row in done.items() if key in known]
        means = {key: sum(row) / len(row) for key, row in known.items()}
        values[name] = means
        controlled = pairwise.length_controlled(
            list(means.values()),
            [len(mine[key]) for key in means],
            [len(its[key]) for key in means],
        )
        details[name] = {
            **pairwise.tally(list(known.values())),
            "identical": len(same),
            "length_controlled": controlled and controlled.as_dict(),
        }
    of_judge = {
        "name": judging.name,
        "position_bias": pairwise.position_bias(firsts),
        "without_verdict": without,
        "cost": _total(cost),
    }
    return values, details, of_judge


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
        "cost": None if (total := _total(costs)) is None else total / n,
        "calls": sum(row["calls"] for row in rows) / n,
        "tokens": tokens if any(row["usage"] for row in rows) else None,
        "latency": {
            "median": statistics.median(latencies),
            "p95": latencies[min(n - 1, int(_TAIL * n))],
        },
        "first_token": statistics.median(firsts) if firsts else None,
        "characters": sum(len(row["answer"]) for row in rows) / n,
    }


def _total(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _pairs(
    names: Sequence[str], baseline: str, values: Mapping[str, Mapping[str, float]]
) -> list[Row]:
    pairs = []
    others = [name for name in names if name != baseline]
    for a, b in itertools.combinations([baseline, *others], 2):
        both = [key for key in values[a] if key in values[b]]
        if both:
            found = intervals.difference([values[b][k] for k in both], [values[a][k] for k in both])
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
