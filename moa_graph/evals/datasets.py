"""Questions of a comparison: from a file, a LangSmith dataset, or generated tasks."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

from moa_graph.errors import nearest
from moa_graph.evals.files import EvalError, Row, digest, name_of, read_rows
from moa_graph.strategies.numerals import last_number
from moa_graph.strategies.similarity import normalize

Scorer: TypeAlias = Literal["exact", "number", "contains"]
"""How an answer is compared with the reference: equal after normalization, equal last number, or
contains the reference."""

QUESTION_FIELDS = ("question", "instruction", "input", "prompt", "messages", "text")
REFERENCE_FIELDS = ("reference", "answer", "gold", "expected", "output")
LANGSMITH, GENERATED = "langsmith:", "reasoning-gym:"
_RIGHT = 1 - 1e-9
_RUNS_TEXT = re.compile(r"(?<!literal_)\b(eval|exec|compile|getattr)\(|sympy|parse_expr|pickle")


@dataclass(frozen=True)
class Item:
    """One question."""

    key: str
    messages: Sequence[BaseMessage]
    reference: str | None
    score: Callable[[str], float] | None
    """Function from an answer to a score from 0 to 1; None if a judge must decide."""
    example: Any = None
    """The LangSmith example, if the question is from LangSmith."""

    @cached_property
    def question(self) -> str:
        """Hash of the messages, equal for equal questions."""
        return digest([[m.type, m.text] for m in self.messages])

    @property
    def turns(self) -> tuple[str, ...]:
        """User messages, turn by turn."""
        return tuple(m.text for m in self.messages if isinstance(m, HumanMessage))

    @property
    def text(self) -> str:
        """Text of the question for a judge."""
        if len(self.messages) == 1:
            return self.messages[0].text
        return "\n\n".join(f"{m.type}: {m.text}" for m in self.messages)


@dataclass(frozen=True)
class Dataset:
    """A named list of questions."""

    name: str
    items: Sequence[Item]

    @property
    def digest(self) -> str:
        """Hash of the content, equal for equal datasets."""
        return digest([[item.key, item.text, item.reference] for item in self.items])

    @property
    def by_content(self) -> dict[str, Item]:
        """Questions by a hash of their content.

        Answers stay valid when the dataset grows. Equal questions get different keys.
        """
        seen: Counter[str] = Counter()
        found = {}
        for item in self.items:
            seen[item.question] += 1
            found[f"{item.question}-{seen[item.question]}"] = item
        return found


def load_dataset(
    spec: str,
    *,
    question: str | None = None,
    reference: str | None = None,
    scorer: Scorer | None = None,
    size: int | None = None,
    seed: int = 42,
) -> Dataset:
    """Load the questions that a command-line argument names.

    Args:
        spec: A file (JSON or JSON Lines), `langsmith:NAME` for a LangSmith dataset, or
            `reasoning-gym:TASK` for tasks that the package `reasoning-gym` generates and scores;
            `reasoning-gym:TASK?name=value&…` sets parameters of the task.
        question: The field with the question, a string or a list of messages; by default the
            first field found of `question`, `instruction`, `input`, `prompt`, `messages`, `text`.
        reference: The field with the right answer; by default the first field found of
            `reference`, `answer`, `gold`, `expected`, `output`.
        scorer: How answers are compared with the reference. Generated tasks have their own scorer.
        size: Maximum number of questions, from the start; all by default. For generated tasks,
            the number of tasks; 200 by default.
        seed: Random seed of generated tasks.

    Raises:
        EvalError: If the dataset does not exist, or a row lacks a field; the message names it.
    """
    if scorer is not None and scorer not in get_args(Scorer):
        raise EvalError(
            f"There is no scorer {scorer!r}.{nearest(scorer, get_args(Scorer))} "
            f"There are: {', '.join(get_args(Scorer))}."
        )
    if spec.startswith(GENERATED):
        return _generated(spec.removeprefix(GENERATED), 200 if size is None else size, seed)
    if spec.startswith(LANGSMITH):
        name, rows = spec.removeprefix(LANGSMITH), _from_langsmith(spec.removeprefix(LANGSMITH))
    else:
        name, rows = name_of(Path(spec)), [(row, None) for row in read_rows(spec)]
    asks = question or _first(QUESTION_FIELDS, rows[0][0])
    says = reference or _first(REFERENCE_FIELDS, rows[0][0])
    if asks is None:
        raise EvalError(
            f"{spec} has no field with the question. It has: {', '.join(rows[0][0])}. Name the "
            "field: --question-field NAME."
        )
    if scorer is not None and says is None:
        raise EvalError(
            f"{spec} has no field with the right answer, which --scorer needs. It has: "
            f"{', '.join(rows[0][0])}. Name the field: --reference-field NAME."
        )
    items = []
    for i, (row, example) in enumerate(rows[:size], 1):
        for field in (asks, *([says] if scorer or reference else [])):
            if field not in row:
                raise EvalError(
                    f"{spec}, row {i}: has no field {field!r}.{nearest(str(field), row)} It has: "
                    f"{', '.join(row)}."
                )
        right = None if says is None else _reference(spec, i, says, row.get(says), example)
        if scorer and right is None:
            raise EvalError(f"{spec}, row {i}: {says!r} is empty, and --scorer needs it.")
        score = _scored(spec, i, scorer, right) if scorer and right is not None else None
        items.append(Item(str(i), _messages(spec, i, asks, row[asks]), right, score, example))
    return Dataset(name, items)


def _reference(spec: str, row: int, field: str, value: Any, example: Any) -> str | None:
    """Return the right answer of a row as text; None if there is none.

    An example of LangSmith can have an object as its right answer, which is written as text.

    Raises:
        EvalError: If the right answer in a file is neither a string nor a finite number.
    """
    if value is None or example is not None:
        return None if value is None else str(value)
    if not isinstance(value, str | int | float) or not math.isfinite(
        0 if isinstance(value, str) else value
    ):
        raise EvalError(
            f"{spec}, row {row}: {field!r} is {value!r:.60}, but the right answer must be a string "
            "or a finite number. Name another field: --reference-field NAME."
        )
    return str(value)


def _first(fields: Sequence[str], row: Row) -> str | None:
    return next((field for field in fields if field in row), None)


def _messages(spec: str, row: int, field: str, value: Any) -> list[BaseMessage]:
    if isinstance(value, str) and value.strip():
        return [HumanMessage(value)]
    if isinstance(value, list) and value:
        try:
            return convert_to_messages(value)
        except (ValueError, TypeError, NotImplementedError, KeyError) as error:
            raise EvalError(f"{spec}, row {row}: {field!r} holds no messages: {error}.") from None
    raise EvalError(f"{spec}, row {row}: {field!r} must be a string or a list of messages.")


def _scored(spec: str, row: int, scorer: Scorer, right: str) -> Callable[[str], float]:
    if scorer == "number":
        if (number := last_number(right, english=True)) is None:
            raise EvalError(
                f"{spec}, row {row}: the right answer {right!r} has no number; use another "
                "--scorer."
            )
        return lambda answer: float(_says(answer, number, percent="%" in right))
    wanted = normalize(right)
    if not wanted:
        raise EvalError(f"{spec}, row {row}: there is nothing to find in the answer {right!r}.")
    if scorer == "contains":
        return lambda answer: float(wanted in " ".join(answer.casefold().split()))
    return lambda answer: float(normalize(answer) == wanted)


def _says(answer: str, number: float, *, percent: bool) -> bool:
    """Return whether the last number of an answer is `number`, with or without a percent sign."""
    said = last_number(answer, english=True)
    if said == number or said is None:
        return said == number
    others = answer.replace("%", "") if not percent else f"{answer.rstrip().rstrip('.')}%"
    return last_number(others, english=True) == number


def _generated(task: str, size: int, seed: int) -> Dataset:
    import reasoning_gym  # noqa: PLC0415 - needs [evals]
    from reasoning_gym.factory import DATASETS  # noqa: PLC0415

    task, _, query = task.partition("?")
    if task not in DATASETS:
        raise EvalError(
            f"reasoning-gym has no task {task!r}.{nearest(task, DATASETS)} Examples are: "
            "chain_sum, leg_counting, gcd, letter_counting, syllogism."
        )
    if size < 1:
        raise EvalError(f"--size must be at least 1, not {size}.")
    parameters = {name: _parameter(value) for name, value in parse_qsl(query)}
    try:
        data = reasoning_gym.create_dataset(task, size=size, seed=seed, **parameters)
        entries = [data[i] for i in range(size)]
    except Exception as error:  # noqa: BLE001 - any error of a task means wrong parameters
        raise EvalError(f"reasoning-gym does not make {task} with {query!r}: {error}") from None
    items = []
    for i, entry in enumerate(entries):
        items.append(
            Item(
                str(i + 1),
                [HumanMessage(str(entry["question"]))],
                None if entry["answer"] is None else str(entry["answer"]),
                _by_task(data, entry),
            )
        )
    return Dataset(f"{task}-{size}-{seed}", items)


def _parameter(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _by_task(data: Any, entry: Any) -> Callable[[str], float]:
    """Return a scorer that uses the scorer of the task.

    An answer is right if the task's scorer accepts the whole answer, the text after "answer:", the
    last line, or the last number. If the task's scorer would run the text as code, the answer is
    compared with the reference instead.
    """
    trusted = not _RUNS_TEXT.search(inspect.getsource(inspect.getmodule(type(data))))  # type: ignore[arg-type]
    if not trusted and entry["answer"] is None:
        raise EvalError(
            "This task of reasoning-gym is scored by running the answer as code, and has no right "
            "answer to compare with: it is refused."
        )

    def is_right(text: str) -> bool:
        if not trusted:  # the task's scorer would run the model's text as code
            return normalize(text) == normalize(str(entry["answer"]))
        try:
            return bool(data.score_answer(text, entry) >= _RIGHT)
        except Exception:  # noqa: BLE001 - scorers raise many types on unexpected text
            return False

    def score(answer: str) -> float:
        if not answer.strip():
            return 0.0
        number = last_number(answer, english=True)
        said = [answer.strip(), normalize(answer), answer.strip().splitlines()[-1].strip()]
        said.append(said[-1].rstrip("."))
        if number is not None and math.isfinite(number):
            said.append(str(int(number)) if number.is_integer() else str(number))
        return float(any(map(is_right, said)))

    return score


def _from_langsmith(name: str) -> list[tuple[Row, Any]]:
    from langsmith import Client  # noqa: PLC0415 - slow import
    from langsmith.utils import LangSmithError, get_env_var  # noqa: PLC0415

    if not get_env_var("API_KEY"):
        raise EvalError(f"{LANGSMITH}{name} needs a key: set LANGSMITH_API_KEY.")
    try:
        examples = list(Client().list_examples(dataset_name=name))
    except LangSmithError as error:
        raise EvalError(f"The LangSmith dataset {name!r} cannot be read: {error}.") from None
    if not examples:
        raise EvalError(f"The LangSmith dataset {name!r} has no examples.")
    examples.sort(key=lambda e: (str(e.created_at), str(e.id)))
    return [({**(e.outputs or {}), **(e.inputs or {})}, e) for e in examples]
