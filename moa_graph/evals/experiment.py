"""Store a comparison as LangSmith experiments, if LangSmith is configured."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_openai_messages

from moa_graph.calling.sync import run
from moa_graph.errors import explain
from moa_graph.evals.datasets import Dataset, Item
from moa_graph.evals.files import EvalError, Journal, Row, digest
from moa_graph.evals.targets import Target

if TYPE_CHECKING:
    from langsmith import Client


def is_configured() -> bool:
    """Return whether LangSmith is configured: tracing is on, and an API key is set."""
    from langsmith.utils import get_env_var, tracing_is_enabled  # noqa: PLC0415

    return bool(tracing_is_enabled() and get_env_var("API_KEY"))


class Experiment:
    """LangSmith experiments of a comparison: one for each target, all on one dataset.

    They are created with `langsmith.aevaluate`. The answers and scores come from the
    journal, so LangSmith shows the same numbers as the report.

    Args:
        client: The LangSmith client; created from environment variables by default.
    """

    def __init__(self, client: Client | None = None) -> None:
        from langsmith import Client  # noqa: PLC0415 - slow import

        self._client = client or Client()
        self._runs: dict[tuple[str, str], Any] = {}
        self._answered: set[str] = set()

    def answer(
        self,
        target: Target,
        dataset: Dataset,
        ask: Callable[[Item], Awaitable[Row]],
        journal: Journal,
        *,
        at_once: int,
    ) -> None:
        """Answer the questions missing in the journal, and create an experiment of all answers.

        A target that has an experiment already gets no second one.

        Args:
            target: The target to evaluate.
            dataset: The questions; uploaded to LangSmith unless they come from there.
            ask: Function that answers a question and returns its row.
            journal: Journal to read rows from and write rows to.
            at_once: Maximum number of questions at the same time.
        """
        from langsmith import aevaluate  # noqa: PLC0415

        if target.name in self._answered:
            return
        self._answered.add(target.name)
        examples = self._examples(dataset)
        items = {str(examples[item.key].id): item for item in dataset.items}
        by_question = {
            digest(examples[item.key].inputs): (key, item)
            for key, item in dataset.by_content.items()
        }

        async def answer(inputs: Row) -> Row:
            key, item = by_question[digest(inputs)]
            row = journal.result(key)
            if row is None:
                try:
                    row = await ask(item)
                except Exception as error:
                    said = str(error) if isinstance(error, EvalError) else explain(error)
                    failed = {"error": said, **getattr(error, "record", {})}
                    journal.add(key, failed)
                    raise
                journal.add(key, row)
            return {"answer": row["answer"]}

        async def evaluate() -> None:
            results = await aevaluate(
                answer,
                data=[examples[item.key] for item in dataset.items],
                experiment_prefix=target.name,
                metadata={
                    "configuration": target.digest,
                    "models": [m.name for m in target.models],
                },
                max_concurrency=at_once,
                client=self._client,
            )
            async for result in results:
                item = items[str(result["example"].id)]
                self._runs[target.name, item.key] = (result["run"].id, results.experiment_id)

        with redirect_stdout(sys.stderr):  # LangSmith prints the URL of the experiment
            run(evaluate())

    def add_scores(self, measure: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Add each answer's score as feedback to its run.

        Args:
            measure: Name of the score.
            values: Scores by target and question.
        """
        for name, scores in values.items():
            for key, score in scores.items():
                if made := self._runs.get((name, key)):
                    run_id, experiment = made
                    self._client.create_feedback(
                        run_id, key=measure, score=score, session_id=experiment
                    )
        self._client.flush()

    def _examples(self, dataset: Dataset) -> dict[str, Any]:
        if all(item.example for item in dataset.items):
            return {item.key: item.example for item in dataset.items}
        name = f"moa-eval {dataset.name} {dataset.digest}"
        if not self._client.has_dataset(dataset_name=name):
            made = self._client.create_dataset(name, description="Made by moa eval compare.")
            self._client.create_examples(
                dataset_id=made.id,
                examples=[
                    {
                        "inputs": {"messages": convert_to_openai_messages(list(item.messages))},
                        "outputs": {"reference": item.reference},
                        "metadata": {"key": item.key},
                    }
                    for item in dataset.items
                ],
            )
        examples = list(self._client.list_examples(dataset_name=name))
        found = {(e.metadata or {}).get("key"): e for e in examples}
        return {item.key: found[item.key] for item in dataset.items}
