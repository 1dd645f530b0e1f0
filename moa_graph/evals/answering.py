"""Ask targets the questions of a dataset, with a journal for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from moa_graph.calling.sync import run
from moa_graph.evals.datasets import Dataset, Item
from moa_graph.evals.experiment import Experiment
from moa_graph.evals.files import EvalError, Journal, Row, file_name
from moa_graph.evals.targets import Target, unique_names
from moa_graph.evals.workers import do_all


def check_names(targets: Sequence[Target]) -> None:
    """Check that the targets have unique names, also as file names.

    Raises:
        EvalError: If two targets have the same name or lead to the same file name.
    """
    unique_names(targets)
    names = [target.name for target in targets]
    files = [file_name(name) for name in names]
    if alike := [name for name in names if files.count(file_name(name)) > 1]:
        raise EvalError(
            f"The names {alike[0]!r} and {alike[1]!r} lead to the same file name: change one of "
            "them (name = …)."
        )


def answer_all(
    targets: Sequence[Target],
    dataset: Dataset,
    folder: Path,
    *,
    experiment: Experiment | None = None,
    at_once: int = 8,
    quiet: bool = False,
) -> dict[str, dict[str, Row]]:
    """Ask every target every question.

    Args:
        targets: Targets with unique names.
        dataset: The questions.
        folder: Folder for the journals, from which an interrupted run continues.
        experiment: LangSmith experiment that also stores the answers.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        By target and key of the question: the result of `Target.ask`, or a row with `error`.
    """
    with ExitStack() as opened:
        # Open all journals first: a journal with other settings must fail before paid requests.
        journals = [opened.enter_context(_journal(target, folder)) for target in targets]
        return {
            target.name: _answers(
                target, dataset, journal, experiment, at_once=at_once, quiet=quiet
            )
            for target, journal in zip(targets, journals, strict=True)
        }


def check_journals(targets: Sequence[Target], folder: Path) -> None:
    """Check that the folder has no results of other settings for these targets.

    Raises:
        EvalError: If it does, or another process uses the folder.
    """
    for target in targets:
        with _journal(target, folder):
            pass


def tokens_of(row: Row) -> int:
    """Return the tokens of an answer, read and written; 0 if they are unknown."""
    return sum(int(of["input"] + of["output"]) for of in row["usage"].values())


def failures(dataset: Dataset, answers: Mapping[str, Mapping[str, Row]]) -> list[Row]:
    """Return the questions without an answer, with `target`, `item` and `error`."""
    return [
        {"target": name, "item": item.key, "error": why}
        for name, rows in answers.items()
        for item in dataset.items
        if (why := rows.get(item.key, {"error": "not asked"}).get("error"))
    ]


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
