"""Recorded answers in place of proposers, so that only the aggregator costs money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.evals.files import EvalError, Row, digest, name_of, read_results

Turns: TypeAlias = tuple[str, ...]
"""User messages of a conversation, turn by turn; the key of a recorded answer."""


class RecordedProposals(Runnable[Any, AIMessage]):
    """A runnable that replays the recorded answers of one model.

    Args:
        name: Name of the model.
        answers: Answers by the user messages of the conversation.
    """

    def __init__(self, name: str, answers: Mapping[Turns, str]) -> None:
        self.name = name
        self._answers = answers

    @classmethod
    def read(cls, path: Path, questions: Mapping[str, Sequence[str]] | None = None) -> Self:
        """Read recorded answers from a file.

        Args:
            path: A JSON or JSON Lines file with outputs of AlpacaEval (`instruction`, `output`,
                `generator`), or answers of MT-Bench (`question_id`, `choices`) or FLASK
                (`question_id`, `text`).
            questions: User turns by question id, for files that have only ids.

        Raises:
            EvalError: If the file has another format.
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
                    continue  # null counts as a missing answer
                if not isinstance(answer, str):
                    raise EvalError(
                        f"{path}: the answer to {turns[i - 1][:60]!r} must be a string, not "
                        f"{type(answer).__name__}."
                    )
                answers[turns[:i]] = answer
        return cls(name, answers)

    @property
    def digest(self) -> str:
        """Hash of the content, equal for equal answers."""
        return digest([self.name, sorted(self._answers.items())])

    def missing(self, questions: Iterable[Turns]) -> list[Turns]:
        """Return the questions without a recorded answer."""
        return [turns for turns in questions if not self._answers.get(turns, "").strip()]

    def invoke(
        self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the recorded answer to a conversation.

        Raises:
            EvalError: If there is no recorded answer.
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
        """Return the recorded answer, as `invoke` does."""
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
