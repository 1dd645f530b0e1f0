"""Answers of several models to the same questions, as arrays."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moa_graph.calling.references import estimated_tokens
from moa_graph.calling.sync import run
from moa_graph.errors import nearest
from moa_graph.evals.files import EvalError
from moa_graph.evals.verifiable import RecordedModel, RecordedSet
from moa_graph.strategies.similarity import similarities

Members: TypeAlias = tuple[int, ...]
"""Rows of a pool's models, in the order in which they win ties."""
Right: TypeAlias = NDArray[np.bool_]
"""Whether the answer to each question is right."""

_FEWEST = 2
_NEARLY_ALL = 0.95  # share of the questions that a model has to have answered


@dataclass(frozen=True)
class Answers:
    """Answers of models, with models in rows and questions in columns.

    Args:
        name: Name of the set of questions.
        models: Names of the models.
        groups: Group of each question; equal questions are one group.
        right: Whether each answer is right.
        codes: A number for each answer. Equal answers to a question have equal numbers, and -1 is
            no answer.
        tokens: Tokens of each answer and its question; NaN if unknown.
        likeness: For each question, the similarity of each pair of replies; NaN for a blank reply.
            None if the full replies are not known.
        asked: Whether the answers of a strategy that asks a model are right, by pool and strategy.
        asked_tokens: Mean tokens of these calls for a question, without those of the pool.
        samples: By number of answers, whether the self-consistency of the best model is right.
        left_out: Models with too few answers, with their numbers of answers.
    """

    name: str
    models: tuple[str, ...]
    groups: tuple[str, ...]
    right: Right
    codes: NDArray[np.int_]
    tokens: NDArray[np.float64]
    likeness: NDArray[np.float64] | None = None
    asked: Mapping[tuple[frozenset[int], str], Right] = field(default_factory=dict)
    asked_tokens: Mapping[tuple[frozenset[int], str], float] = field(default_factory=dict)
    samples: Mapping[int, Right] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of questions."""
        return len(self.groups)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each question, so that equal questions together count as one."""
        times = Counter(self.groups)
        return np.array([1 / times[group] for group in self.groups])

    def accuracy(self, right: Any, places: NDArray[np.int_] | None = None) -> float:
        """Return the share of right answers; equal questions count once.

        Args:
            right: Whether each answer is right, for every question.
            places: Questions to use; all by default.
        """
        weights = self.weights if places is None else self.weights[places]
        return float(np.average(right if places is None else right[places], weights=weights))

    def tokens_of(self, members: Sequence[int]) -> float | None:
        """Return the mean tokens of the models for a question; None if unknown."""
        found = float(self.tokens[list(members)].mean(axis=1).sum())
        return found if np.isfinite(found) else None


def usable_models(recorded: RecordedSet, names: Sequence[str] | None = None) -> list[RecordedModel]:
    """Return the models to choose from, the most accurate first.

    Args:
        recorded: Recorded answers.
        names: Names of the models; by default all that answered 95 % of the questions or more, or
            all models if fewer than two did.

    Raises:
        EvalError: If a name is unknown or given twice, or there are fewer than two models.
    """
    if names is None:
        most = _NEARLY_ALL * len(recorded.questions)
        found = [m for m in recorded.models.values() if len(m.answers) >= most]
        found = found if len(found) >= _FEWEST else list(recorded.models.values())
        if len(found) < _FEWEST:
            raise EvalError(f"{recorded.name} has the answers of one model; a pool needs two.")
        return sorted(found, key=lambda m: (-m.accuracy, m.name))
    if len(names) < _FEWEST:
        raise EvalError(f"A pool needs at least two models, not {len(names)}.")
    for name in names:
        if name not in recorded.models:
            raise EvalError(
                f"{recorded.name} has no model {name!r}.{nearest(name, recorded.models)} It has: "
                f"{', '.join(recorded.models)}."
            )
        if names.count(name) > 1:
            raise EvalError(f"The pool names {name!r} twice.")
    return [recorded.models[name] for name in names]


def answers_of(
    recorded: RecordedSet,
    names: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    quiet: bool = False,
) -> Answers:
    """Return the answers to the questions that all models were asked.

    Args:
        recorded: Recorded answers.
        names: Names of the models, as for `usable_models`.
        limit: Maximum number of questions, from the start; all by default.
        quiet: Whether to hide the progress bar.

    Raises:
        EvalError: As for `usable_models`, or if no question was answered by all models.
    """
    models = usable_models(recorded, names)
    keys = [k for k in recorded.questions if all(k in m.answers for m in models)][:limit]
    if not keys:
        raise EvalError(
            f"There is no question that all of {', '.join(m.name for m in models)} were asked."
        )
    table = [[m.answers[k] for k in keys] for m in models]
    for model, row in zip(models, table, strict=True):
        if all(a.answer is None for a in row) and any(a.correct for a in row):
            raise EvalError(
                f"{recorded.name} has verdicts of {model.name}, but not its answers, so that no "
                "vote can be evaluated. Record the answers, or leave the model out (--models)."
            )
    used = {m.name for m in models}
    return Answers(
        name=recorded.name,
        models=tuple(m.name for m in models),
        groups=tuple(recorded.group(key) for key in keys),
        left_out={
            name: len(model.answers)
            for name, model in recorded.models.items()
            if names is None and name not in used
        },
        right=np.array([[a.correct for a in row] for row in table]),
        codes=_codes([[a.answer for a in row] for row in table]),
        tokens=np.array(
            [
                [_tokens(recorded.questions[k], a) for k, a in zip(keys, row, strict=True)]
                for row in table
            ]
        ),
        likeness=(
            _likeness(
                [recorded.questions[k] for k in keys],
                [[m.answers[k].reply or "" for m in models] for k in keys],
                title=f"{recorded.name}: similarity",
                quiet=quiet,
            )
            if all(m.has_replies for m in models)
            else None
        ),
    )


def _tokens(question: str, answer: Any) -> float:
    if answer.tokens is not None:
        return float(answer.tokens)
    if answer.reply is None:
        return float("nan")
    return float(estimated_tokens(question) + estimated_tokens(answer.reply))


def _codes(table: Sequence[Sequence[Any]]) -> NDArray[np.int_]:
    known: dict[Hashable, int] = {}
    return np.array(
        [
            [-1 if a is None or a == "" else known.setdefault(_hashable(a), len(known)) for a in r]
            for r in table
        ],
        dtype=int,
    )


def _hashable(answer: Any) -> Hashable:
    try:
        hash(answer)
    except TypeError:
        return repr(answer)
    return answer  # type: ignore[no-any-return]


def _likeness(
    questions: Sequence[str], replies: Sequence[Sequence[str]], *, title: str, quiet: bool
) -> NDArray[np.float64]:
    """Return the similarities that `MostCentral` compares."""
    from tqdm import tqdm  # noqa: PLC0415 - needs [evals]

    count = len(replies[0])
    found = np.full((len(questions), count, count), np.nan)

    async def fill() -> None:
        rows = list(zip(questions, replies, strict=True))
        for q, (question, texts) in enumerate(
            tqdm(rows, desc=title, disable=quiet, file=sys.stderr, mininterval=0.5)
        ):
            places = [i for i, text in enumerate(texts) if text.strip()]
            if places:
                some = await similarities([texts[i] for i in places], question)
                found[q][np.ix_(places, places)] = some

    run(fill())
    return found
