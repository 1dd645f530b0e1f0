"""Judge the answers of targets against those of a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from moa_graph.calling.sync import run
from moa_graph.evals import intervals, pairwise
from moa_graph.evals.datasets import Item
from moa_graph.evals.files import EvalFailed, Journal, Row, digest, file_name
from moa_graph.evals.length_control import length_controlled
from moa_graph.evals.pairwise import ORDERS, Pair
from moa_graph.evals.targets import Target
from moa_graph.evals.workers import do_all


def judge_all(
    judging: Target,
    baseline: str,
    items: Sequence[Item],
    answers: Mapping[str, Mapping[str, Row]],
    folder: Path,
    *,
    at_once: int,
    quiet: bool,
) -> tuple[dict[str, dict[str, float]], dict[str, Row], Row]:
    """Compare each target's answers with those of the baseline, in both orders.

    Args:
        judging: The judge.
        baseline: Name of the baseline.
        items: The questions.
        answers: Answers by target and key of the question.
        folder: Folder for the journals of the verdicts.
        at_once: Maximum number of verdicts at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The preferences by target and item, the details by target, and the judge's record.

    Raises:
        EvalFailed: If the judge gave no verdict on any answer of a target.
    """
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
        details[name] = {
            **pairwise.tally(list(known.values())),
            "identical": len(same),
            **_length_controlled(means, mine, its, {item.key: item.question for item in items}),
        }
    of_judge = {
        "name": judging.name,
        "position_bias": pairwise.position_bias(firsts),
        "without_verdict": without,
        "cost": total(cost),
    }
    return values, details, of_judge


def _length_controlled(
    means: Mapping[str, float],
    mine: Mapping[str, str],
    its: Mapping[str, str],
    questions: Mapping[str, str],
) -> Row:
    groups = [questions[key] for key in means]
    columns = (
        list(means.values()),
        [float(len(mine[key])) for key in means],
        [float(len(its[key])) for key in means],
    )
    rate, why = length_controlled(*(intervals.by_group(column, groups) for column in columns))
    return {"length_controlled": rate and rate.as_dict(), "length_controlled_note": why}


def total(costs: Sequence[float | None]) -> float | None:
    """Return the sum of the costs; None if one is unknown."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
