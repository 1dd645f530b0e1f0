"""Answers from files in the place of proposers, so that only the aggregator is paid for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.evals.files import EvalError, Row, digest, name_of, read_results

Turns: TypeAlias = tuple[str, ...]
"""What a user has said in a conversation, turn by turn: what an answer is recorded under."""


class RecordedProposals(Runnable[Any, AIMessage]):
    """What one model has answered, as a model that answers so again.

    Args:
        name: The model's.
        answers: By what was asked, the answers.
    """

    def __init__(self, name: str, answers: Mapping[Turns, str]) -> None:
        self.name = name
        self._answers = answers

    @classmethod
    def read(cls, path: Path, questions: Mapping[str, Sequence[str]] | None = None) -> Self:
        """From a file.

        Args:
            path: JSON or JSON Lines: AlpacaEval's outputs (`instruction`, `output`, `generator`),
                MT-Bench's answers (`question_id`, `choices`), or FLASK's (`question_id`, `text`).
            questions: By id, what is asked turn by turn, for files that have ids only.

        Raises:
            EvalError: If it is not one of these.
        """
        rows = read_results(path)
        name = name_of(path)
        for field in ("generator", "model_id"):
            name = next((str(row[field]) for row in rows if row.get(field)), name)
        answers: dict[Turns, str] = {}
        for row in rows:
            if row.get("error"):
                continue
            turns, said = _turns_of(path, row, questions or {})
            for i, answer in enumerate(said, 1):
                if answer is None:
                    continue  # as if it were not there
                if not isinstance(answer, str):
                    raise EvalError(
                        f"{path}: the answer to {turns[i - 1][:60]!r} must be a string, not "
                        f"{type(answer).__name__}."
                    )
                answers[turns[:i]] = answer
        return cls(name, answers)

    @property
    def digest(self) -> str:
        """Says whether two are the same."""
        return digest([self.name, sorted(self._answers.items())])

    def missing(self, questions: Iterable[Turns]) -> list[Turns]:
        """Those questions that it has no answer to."""
        return [turns for turns in questions if not self._answers.get(turns, "").strip()]

    def invoke(
        self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the recorded answer to a conversation.

        Raises:
            EvalError: If there is none.
        """
        del config, kwargs
        turns = tuple(m.text for m in input if isinstance(m, HumanMessage))
        answer = self._answers.get(turns)
        if answer is None:
            raise EvalError(f"{self.name} has no recorded answer to this question")
        return AIMessage(answer, response_metadata={"model_name": self.name})

    async def ainvoke(
        self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """As `invoke`."""
        return self.invoke(input, config, **kwargs)


def _turns_of(
    path: Path, row: Row, questions: Mapping[str, Sequence[str]]
) -> tuple[Turns, list[Any]]:
    if "instruction" in row and "output" in row:
        return (str(row["instruction"]),), [row["output"]]
    for field in ("question_id", "idx", "key", "id"):
        if field in row:
            key = str(row[field])
            break
    else:
        raise EvalError(
            f"{path} is not a file of answers: its rows need `instruction` and `output`, or "
            f"`question_id` and `choices` or `text`. The first has: {', '.join(row)}."
        )
    if key not in questions:
        raise EvalError(f"{path} answers the question {key!r}, which is not asked here.")
    if "choices" in row:
        try:
            said = list(row["choices"][0]["turns"])
        except (LookupError, TypeError):
            raise EvalError(
                f"{path}: the answer to {key!r} has no `choices` with `turns`."
            ) from None
    else:
        fields = [f for f in ("text", "answers", "answer", "output") if f in row]
        if not fields:
            raise EvalError(f"{path}: the answer to {key!r} has neither `text` nor `answer`.")
        answer = row[fields[0]]
        said = answer if isinstance(answer, list) else [answer]
    return tuple(questions[key]), said
