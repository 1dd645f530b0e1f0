"""Recorded answers from logs of the evaluation framework Inspect (`inspect_ai`).

The package reads its own logs: `pip install inspect_ai`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moa_graph.evals.files import EvalError
from moa_graph.evals.parsing import final_answer
from moa_graph.evals.verifiable import RecordedAnswer, RecordedModel, RecordedSet, distinct
from moa_graph.strategies.similarity import normalize

_HEAD = 4096  # bytes of a JSON log in which its first fields are
_RIGHT = 1 - 1e-9
_PROVIDERS = {  # Inspect's names, and LangChain's
    "anthropic": "anthropic",
    "bedrock": "bedrock_converse",
    "fireworks": "fireworks",
    "google": "google_genai",
    "grok": "xai",
    "groq": "groq",
    "mistral": "mistralai",
    "ollama": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
}


def is_log(path: Path) -> bool:
    """Return whether a file is a log of Inspect, by its suffix and its first bytes."""
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return head.lstrip().startswith(b"{") and b'"eval"' in head


def read_logs(paths: Sequence[Path]) -> list[RecordedSet]:
    """Read logs of Inspect, one for each model and task.

    The first scorer of a log decides whether an answer is right: its value must be as good as
    `"C"`, so a partial score is not right. Of several epochs, the first counts. Samples that ended
    in an error have no answer.

    Args:
        paths: Logs, `.eval` or `.json`.

    Returns:
        A set for each task.

    Raises:
        EvalError: If `inspect_ai` is not installed, a file is damaged, a log has no scores, or
            two logs have the same model and task.
    """
    by_task: defaultdict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path in paths:
        log = _read(path)
        by_task[str(log.eval.task)].append((path, log))
    return [_set_of(task, logs) for task, logs in by_task.items()]


def _read(path: Path) -> Any:
    try:
        from inspect_ai.log import read_eval_log  # noqa: PLC0415 - optional
    except ImportError:
        raise EvalError(
            "Logs of Inspect are read with its package: pip install inspect_ai."
        ) from None
    try:
        log = read_eval_log(path)
    except Exception as error:  # noqa: BLE001 - zip, JSON and validation errors of a damaged file
        raise EvalError(f"{path} is not a log of Inspect ({type(error).__name__}).") from None
    if not log.samples:
        raise EvalError(f"{path} has no samples: the evaluation ended with {log.status!r}.")
    return log


def _set_of(task: str, logs: Sequence[tuple[Path, Any]]) -> RecordedSet:
    questions: dict[str, str] = {}
    models: dict[str, RecordedModel] = {}
    for path, log in logs:
        name = _model_name(str(log.eval.model))
        if name in models:
            raise EvalError(f"{path} is a second log of {name} for the task {task!r}.")
        answers = {}
        for sample in log.samples:
            key = str(sample.id)
            questions.setdefault(key, _text(sample.input))
            if sample.error is None and key not in answers:
                answers[key] = _answer(path, sample)
        if not answers:
            raise EvalError(f"{path} has no answers: all of its samples ended in an error.")
        models[name] = RecordedModel(name, answers, None, ())
    return RecordedSet(task.rpartition("/")[2], distinct(questions), _parse, models)


def _answer(path: Path, sample: Any) -> RecordedAnswer:
    from inspect_ai.scorer import value_to_float  # noqa: PLC0415 - optional

    if not sample.scores:
        raise EvalError(f"{path}: the sample {sample.id!r} has no score.")
    score = next(iter(sample.scores.values()))
    reply = str(sample.output.completion)
    said = score.answer or reply
    tokens = sum(used.total_tokens for used in sample.model_usage.values())
    right = float(value_to_float()(score.value)) >= _RIGHT
    return RecordedAnswer(reply, normalize(str(said)) or None, right, tokens or None)


def _parse(reply: str) -> str:
    return normalize(final_answer(reply) or reply)


def _text(given: Any) -> str:
    if isinstance(given, str):
        return given
    return "\n\n".join(str(message.text) for message in given)


def _model_name(name: str) -> str:
    """Return `"openai/gpt-4o"` as `"openai:gpt-4o"`, if LangChain knows the provider."""
    provider, _, model = name.partition("/")
    return f"{_PROVIDERS[provider]}:{model}" if model and provider in _PROVIDERS else name
