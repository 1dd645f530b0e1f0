"""The questions of a comparison: a file, a LangSmith dataset, or generated tasks."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

from moa_graph.errors import nearest
from moa_graph.evals.files import EvalError, Row, digest, name_of, read_rows
from moa_graph.strategies.numerals import last_number
from moa_graph.strategies.similarity import normalize

Scorer: TypeAlias = Literal["exact", "number", "contains"]
"""How an answer is compared with the reference: as short texts, by its last number, or whether it
contains it."""

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
    """From an answer to 0 … 1; None where only a judge can tell."""
    example: Any = None
    """The example in LangSmith, if it is from there."""

    @property
    def turns(self) -> tuple[str, ...]:
        """What the user says, turn by turn."""
        return tuple(m.text for m in self.messages if isinstance(m, HumanMessage))

    @property
    def text(self) -> str:
        """What is asked, for a judge to read."""
        if len(self.messages) == 1:
            return self.messages[0].text
        return "\n\n".join(f"{m.type}: {m.text}" for m in self.messages)


@dataclass(frozen=True)
class Dataset:
    """Questions under a name."""

    name: str
    items: Sequence[Item]

    @property
    def digest(self) -> str:
        """Says whether two are the same."""
        return digest([[item.key, item.text, item.reference] for item in self.items])

    @property
    def by_content(self) -> dict[str, Item]:
        """The questions by what they say, so that answers stay theirs in a longer data set; the
        second of two equal ones has a key of its own.
        """
        seen: Counter[str] = Counter()
        found = {}
        for item in self.items:
            said = digest([[m.type, m.text] for m in item.messages])
            seen[said] += 1
            found[f"{said}-{seen[said]}"] = item
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
    """Questions by what a user writes on the command line.

    Args:
        spec: A file (JSON or JSON Lines), `langsmith:NAME` for a LangSmith dataset, or
            `reasoning-gym:TASK` for tasks that the package `reasoning-gym` generates and scores;
            `reasoning-gym:TASK?name=value&…` sets the task's own parameters.
        question: The field with the question, a text or a list of messages; by default the first
            there is of `question`, `instruction`, `input`, `prompt`, `messages`, `text`.
        reference: The field with the right answer; by default the first there is of `reference`,
            `answer`, `gold`, `expected`, `output`.
        scorer: How answers are compared with it. Generated tasks bring their own.
        size: Only the first so many; of generated tasks, how many (200).
        seed: For generated tasks.

    Raises:
        EvalError: If there is no such dataset, or a row lacks a field; says which.
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
        right = None if says is None or row.get(says) is None else str(row[says])
        if scorer and right is None:
            raise EvalError(f"{spec}, row {i}: {says!r} is empty, and --scorer needs it.")
        score = _scored(spec, i, scorer, right) if scorer and right is not None else None
        items.append(Item(str(i), _messages(spec, i, asks, row[asks]), right, score, example))
    return Dataset(name, items)


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
                f"{spec}, row {row}: the right answer {right!r} has no number; take another "
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
    """Whether an answer ends in that number; it may leave out a percent sign, or have one more."""
    said = last_number(answer, english=True)
    if said == number or said is None:
        return said == number
    others = answer.replace("%", "") if not percent else f"{answer.rstrip().rstrip('.')}%"
    return last_number(others, english=True) == number


def _generated(task: str, size: int, seed: int) -> Dataset:
    import reasoning_gym  # noqa: PLC0415 - with [evals]
    from reasoning_gym.factory import DATASETS  # noqa: PLC0415

    task, _, query = task.partition("?")
    if task not in DATASETS:
        raise EvalError(
            f"reasoning-gym has no task {task!r}.{nearest(task, DATASETS)} Such are: "
            "chain_sum, leg_counting, gcd, letter_counting, syllogism."
        )
    if size < 1:
        raise EvalError(f"--size must be at least 1, not {size}.")
    parameters = {name: _parameter(value) for name, value in parse_qsl(query)}
    try:
        data = reasoning_gym.create_dataset(task, size=size, seed=seed, **parameters)
        entries = [data[i] for i in range(size)]
    except Exception as error:  # noqa: BLE001 - whatever its tasks raise, the parameters are wrong
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
    """Right if the task's own scorer says so of the whole answer, of what stands behind
    "answer:", of the last line, or of the last number. Where that scorer would run the text as
    code, it is compared with the right answer instead.
    """
    trusted = not _RUNS_TEXT.search(inspect.getsource(inspect.getmodule(type(data))))  # type: ignore[arg-type]
    if not trusted and entry["answer"] is None:
        raise EvalError(
            "This task of reasoning-gym is scored by running the answer as code, and has no right "
            "answer to compare with: it is refused."
        )

    def is_right(text: str) -> bool:
        if not trusted:  # the task's own scorer would run a model's text
            return normalize(text) == normalize(str(entry["answer"]))
        try:
            return bool(data.score_answer(text, entry) >= _RIGHT)
        except Exception:  # noqa: BLE001 - scorers stumble over texts that they do not expect
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
    from langsmith import Client  # noqa: PLC0415 - takes long to import
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
