"""Ask models for what records do not have: answers, rankings, syntheses and more samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moa_graph.evals.answering import answer_all, check_names, failures, tokens_of
from moa_graph.evals.datasets import Dataset, Scorer
from moa_graph.evals.files import EvalError, EvalFailed, Row
from moa_graph.evals.pools.answers import Answers, Right
from moa_graph.evals.pools.choosing import RANK, SYNTHESIS, by_vote
from moa_graph.evals.pools.selection import (
    COMPLEMENTARY,
    FOLDS,
    best_model,
    folds_of,
    pools,
)
from moa_graph.evals.pools.study import check_enough
from moa_graph.evals.recorded import RecordedProposals
from moa_graph.evals.targets import Prices, Target, of_graph, of_model, proposer_name
from moa_graph.evals.verifiable import RecordedAnswer, RecordedModel, RecordedSet, distinct
from moa_graph.graph import create_moa
from moa_graph.layers import Proposer
from moa_graph.strategies.numerals import last_number
from moa_graph.strategies.rank import Rank
from moa_graph.strategies.similarity import normalize

_RIGHT = 1 - 1e-9
_MOST_SAMPLES = 10


def models_of(specs: Sequence[str], prices: Prices | None = None) -> list[Target]:
    """Return the models as targets, after checking that each can be called.

    Raises:
        EvalError: If a model is not `"provider:model"`, cannot be built, or is given twice.
    """
    try:
        targets = [of_model(spec, prices) for spec in specs]
    except (ValueError, TypeError) as error:
        raise EvalError(str(error)) from None
    check_names(targets)
    for target in targets:
        target.check()
    return targets


def ask_models(
    targets: Sequence[Target],
    dataset: Dataset,
    folder: Path,
    *,
    scorer: Scorer | None = None,
    at_once: int = 8,
    quiet: bool = False,
) -> RecordedSet:
    """Ask every model every question.

    Args:
        targets: The models.
        dataset: Questions with a scorer.
        folder: Folder for the journals, from which an interrupted run continues.
        scorer: How answers are compared; votes compare them in the same way.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The answers to the questions that all models answered.

    Raises:
        EvalError: If a question has no scorer, or there are too few models or questions.
        EvalFailed: If no question was answered by all models.
    """
    if len(targets) < 2:  # noqa: PLR2004 - two models make a pool
        raise EvalError(f"A pool needs at least two models, not {len(targets)}.")
    check_enough(dataset.name, len({item.question for item in dataset.items}))
    if not all(item.score for item in dataset.items):
        raise EvalError(
            f"{dataset.name} has no scorer: say how an answer is right (--scorer exact, number or "
            "contains)."
        )
    answers = answer_all(targets, dataset, folder, at_once=at_once, quiet=quiet)
    missing = failures(dataset, answers)
    failed = {failure["item"] for failure in missing}
    items = [item for item in dataset.items if item.key not in failed]
    if not items:
        raise EvalFailed(f"No question was answered by all models ({missing[0]['error']}).")
    parse: Callable[[str], Any] = _number if scorer == "number" else normalize
    models = {}
    for name, rows in answers.items():
        found = {}
        for item in items:
            assert item.score is not None
            text = rows[item.key]["answer"]
            right = item.score(text) >= _RIGHT
            found[item.key] = RecordedAnswer(
                text, parse(text), right, tokens_of(rows[item.key]) or None
            )
        models[name] = RecordedModel(name, found, None, ())
    questions = distinct({item.key: item.text for item in items})
    return RecordedSet(dataset.name, questions, parse, models)


def _number(text: str) -> float | None:
    return last_number(text, english=True)


def _answered(dataset: Dataset, recorded: RecordedSet) -> Dataset:
    """Return the questions that all models answered."""
    return replace(dataset, items=[i for i in dataset.items if i.key in recorded.questions])


def ask_strategies(
    answers: Answers,
    recorded: RecordedSet,
    dataset: Dataset,
    writer: Target,
    folder: Path,
    *,
    largest: int,
    at_once: int = 8,
    quiet: bool = False,
) -> Answers:
    """Let a model rank and synthesize the answers of the complementary pools.

    The pools are those that are chosen on all questions and on those outside of each fold.

    Args:
        answers: The answers of the models.
        recorded: The same answers, with their texts.
        dataset: The questions.
        writer: The model that ranks and writes.
        folder: Folder for the journals.
        largest: Maximum number of models in a pool.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Raises:
        EvalFailed: If some calls failed; the others are kept.
    """
    folds = folds_of(answers.groups)
    parts = [np.arange(answers.n), *(np.flatnonzero(folds != fold) for fold in range(FOLDS))]
    members = {
        frozenset(found)
        for places in parts
        for (family, _), found in pools(answers, places, largest).items()
        if family == COMPLEMENTARY
    }
    some = _answered(dataset, recorded)
    proposals = [_proposals(recorded.models[name], some) for name in answers.models]
    targets = {
        (pool, strategy): _mixture([proposals[i] for i in sorted(pool)], strategy, writer)
        for pool in sorted(members, key=sorted)
        for strategy in (RANK, SYNTHESIS)
    }
    rows = _all_answers(list(targets.values()), some, folder, at_once=at_once, quiet=quiet)
    right, tokens = {}, {}
    for key, target in targets.items():
        right[key] = _right(some, rows[target.name])
        spent = [tokens_of(row) for row in rows[target.name].values()]
        tokens[key] = float(np.mean(spent))
    return replace(answers, asked=right, asked_tokens=tokens)


def _proposals(model: RecordedModel, dataset: Dataset) -> RecordedProposals:
    said = {item.turns: model.answers[item.key].reply or "" for item in dataset.items}
    return RecordedProposals(model.name, said)


def _mixture(proposals: Sequence[RecordedProposals], strategy: str, writer: Target) -> Target:
    proposers = [Proposer(p, name=proposer_name(p)) for p in proposals]
    model = writer.models[0]
    graph = create_moa(proposers, Rank(model) if strategy == RANK else model)
    # Results are stored by question, and stay valid when more questions are answered.
    described = [strategy, writer.digest, [str(p.name) for p in proposals]]
    name = f"{strategy} by {writer.name} of {', '.join(str(p.name) for p in proposals)}"
    return replace(of_graph(name, graph, described, writer.prices), recorded=proposals)


def ask_samples(
    answers: Answers,
    recorded: RecordedSet,
    dataset: Dataset,
    targets: Mapping[str, Target],
    folder: Path,
    *,
    largest: int,
    at_once: int = 8,
    quiet: bool = False,
) -> Answers:
    """Ask the best model as often as takes the tokens of a pool, for its self-consistency.

    Args:
        answers: The answers of the models.
        recorded: The same answers, with their texts.
        dataset: The questions.
        targets: The models by name.
        folder: Folder for the journals.
        largest: Maximum number of models in a pool.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Raises:
        EvalFailed: If some calls failed; the others are kept.
    """
    everywhere = np.arange(answers.n)
    best = best_model(answers, everywhere)
    alone = answers.tokens_of([best])
    counts = {
        len(members) if not alone else round((answers.tokens_of(members) or 0) / alone)
        for members in pools(answers, everywhere, largest).values()
    }
    counts = {min(count, _MOST_SAMPLES) for count in counts if count > 1}
    if not counts:
        return answers
    name = answers.models[best]
    some = _answered(dataset, recorded)
    more = [
        replace(targets[name], name=f"{name}, answer {number}")
        for number in range(2, max(counts) + 1)
    ]
    rows = _all_answers(more, some, folder, at_once=at_once, quiet=quiet)
    first = recorded.models[name].answers
    codes: dict[Any, int] = {}

    def code(text: str) -> int:
        said = recorded.parse(text)
        return -1 if said is None or said == "" else codes.setdefault(said, len(codes))

    samples = replace(
        answers,
        models=(name, *(target.name for target in more)),
        right=np.array([answers.right[best], *(_right(some, rows[t.name]) for t in more)]),
        codes=np.array(
            [
                [code(first[item.key].reply or "") for item in some.items],
                *([code(rows[t.name][item.key]["answer"]) for item in some.items] for t in more),
            ]
        ),
    )
    found = {count: by_vote(samples, tuple(range(count))) for count in sorted(counts)}
    return replace(answers, samples=found)


def _all_answers(
    targets: Sequence[Target], dataset: Dataset, folder: Path, *, at_once: int, quiet: bool
) -> dict[str, dict[str, Row]]:
    rows = answer_all(targets, dataset, folder, at_once=at_once, quiet=quiet)
    if missing := failures(dataset, rows):
        raise EvalFailed(
            f"{len(missing)} of {len(targets) * len(dataset.items)} calls failed "
            f"({missing[0]['error']}). The others are kept: run the same command again."
        )
    return rows


def _right(dataset: Dataset, rows: Mapping[str, Row]) -> Right:
    return np.array(
        [
            item.score is not None and item.score(rows[item.key]["answer"]) >= _RIGHT
            for item in dataset.items
        ]
    )
