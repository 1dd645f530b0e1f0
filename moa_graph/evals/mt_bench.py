"""MT-Bench: 80 questions with two turns in 8 categories; a judge grades each turn from 1 to 10.

Zheng et al., "Judging LLM-as-a-Judge" (arXiv 2306.05685). The prompts are verbatim from FastChat
(`fastchat/llm_judge/data/judge_prompts.jsonl`, Apache-2.0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from moa_graph.calling.sync import run
from moa_graph.evals.files import (
    EvalError,
    Journal,
    Row,
    by_key,
    digest,
    is_text,
    read_rows,
    replace,
)
from moa_graph.evals.hub import download
from moa_graph.evals.mt_bench_scores import rating
from moa_graph.evals.targets import AnswerFailed, Target
from moa_graph.evals.workers import do_all, results

TITLE = "MT-Bench"
WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories that are graded with a reference answer."""
TURNS = (1, 2)
_REPOSITORY = "lmsys/mt-bench"

_ASSISTANT = "You are a helpful assistant."
_CRITERIA = (
    "Your evaluation should consider factors such as the helpfulness, relevance, accuracy, depth, "
    "creativity, and level of detail of the response."
)
_BY_REFERENCE = (
    "Your evaluation should consider correctness and helpfulness. You will be given a reference "
    "answer and the assistant's answer."
)
_FORMAT = (
    "Be as objective as possible. After providing your explanation, you must rate the response on "
    'a scale of 1 to 10 by strictly following this format: "[[rating]]", for example: "Rating: '
    '[[5]]".\n\n'
)
_SINGLE = (
    "[Instruction]\nPlease act as an impartial judge and evaluate the quality of the response "
    f"provided by an AI assistant to the user question displayed below. {_CRITERIA} Begin your "
    f"evaluation by providing a short explanation. {_FORMAT}[Question]\n{{question_1}}\n\n"
    "[The Start of Assistant's Answer]\n{answer_1}\n[The End of Assistant's Answer]"
)
_SINGLE_MATH = (
    "[Instruction]\nPlease act as an impartial judge and evaluate the quality of the response "
    f"provided by an AI assistant to the user question displayed below. {_BY_REFERENCE} Begin "
    "your evaluation by comparing the assistant's answer with the reference answer. Identify and "
    f"correct any mistakes. {_FORMAT}[Question]\n{{question_1}}\n\n[The Start of Reference "
    "Answer]\n{ref_answer_1}\n[The End of Reference Answer]\n\n[The Start of Assistant's Answer]\n"
    "{answer_1}\n[The End of Assistant's Answer]"
)
_MULTI_SYSTEM = (
    "Please act as an impartial judge and evaluate the quality of the response provided by an AI "
    f"assistant to the user question displayed below. {_CRITERIA} You evaluation should focus on "
    "the assistant's answer to the second user question. Begin your evaluation by providing a "
    f"short explanation. {_FORMAT}"
)
_MULTI_MATH_SYSTEM = (
    "Please act as an impartial judge and evaluate the quality of the response provided by an AI "
    f"assistant to the user question. {_BY_REFERENCE} You evaluation should focus on the "
    "assistant's answer to the second question. Begin your evaluation by comparing the "
    f"assistant's answer with the reference answer. Identify and correct any mistakes. {_FORMAT}"
)
_CONVERSATION = (
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n{question_1}\n\n"
    "### Assistant A:\n{answer_1}\n\n### User:\n{question_2}\n\n### Assistant A:\n{answer_2}\n\n"
    "<|The End of Assistant A's Conversation with User|>"
)
_REFERENCE = (
    "<|The Start of Reference Answer|>\n\n### User:\n{question_1}\n\n### Reference answer:\n"
    "{ref_answer_1}\n\n### User:\n{question_2}\n\n### Reference answer:\n{ref_answer_2}\n\n"
    "<|The End of Reference Answer|>"
)


@dataclass(frozen=True)
class JudgePrompt:
    """One of the published judge prompts."""

    name: str
    system: str
    template: str


PROMPTS = {
    (1, False): JudgePrompt("single-v1", _ASSISTANT, _SINGLE),
    (1, True): JudgePrompt("single-math-v1", _ASSISTANT, _SINGLE_MATH),
    (2, False): JudgePrompt("single-v1-multi-turn", _MULTI_SYSTEM, _CONVERSATION),
    (2, True): JudgePrompt(
        "single-math-v1-multi-turn", _MULTI_MATH_SYSTEM, f"{_REFERENCE}\n\n\n{_CONVERSATION}"
    ),
}
"""Prompts by turn and by whether there is a reference answer."""


def load_questions(path: Path | None = None) -> list[Row]:
    """Load the questions.

    Args:
        path: A JSON Lines file with `question_id`, `category` and `turns`; by default
            the file is downloaded from the hub.

    Raises:
        EvalError: If the file cannot be read or downloaded, or has another format.
    """
    path = path or download(
        _REPOSITORY,
        "data/mt_bench/question.jsonl",
        kind="space",
        instead="Give FastChat's file: --questions question.jsonl.",
    )
    rows = read_rows(path, ["question_id", "category", "turns"])
    for row in rows:
        turns = row["turns"]
        if not isinstance(turns, list) or not turns or not all(map(is_text, turns)):
            raise EvalError(
                f"{path}: `turns` of question {row['question_id']} must be a list of texts."
            )
    by_key(rows, lambda row: str(row["question_id"]), str(path))
    return rows


def load_references(path: Path | None = None) -> dict[str, list[str]]:
    """Load the reference answers, as lists of turns by question.

    Args:
        path: A JSON Lines file with `question_id` and `choices`; by default the file is
            downloaded from the hub.
    """
    path = path or download(
        _REPOSITORY,
        "data/mt_bench/reference_answer/gpt-4.jsonl",
        kind="space",
        instead="Give FastChat's file: --reference-answers gpt-4.jsonl.",
    )
    rows = read_rows(path, ["question_id", "choices"])
    try:
        return {str(row["question_id"]): list(row["choices"][0]["turns"]) for row in rows}
    except (LookupError, TypeError):
        raise EvalError(f"{path}: an answer has no `choices` with `turns`.") from None


def turns_by_id(questions: Iterable[Row]) -> dict[str, list[str]]:
    """Return the user turns by question."""
    return {str(q["question_id"]): list(q["turns"]) for q in questions}


def generate(
    target: Target,
    questions: Sequence[Row],
    folder: Path,
    *,
    at_once: int = 8,
    quiet: bool = False,
) -> dict[str, Row]:
    """Answer all turns of the questions; each turn sees the answers to earlier turns.

    Args:
        target: The target to evaluate.
        questions: The result of `load_questions`.
        folder: Output folder for the journal `answers.jsonl`, and for `model_answer.jsonl` in
            FastChat's format.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        Rows by question; `answers` has one answer for each turn.

    Raises:
        EvalFailed: If some answers failed; the others are kept and written.
    """
    items = {f"{q['question_id']}-{digest(q['turns'])}": q for q in questions}
    about = {"benchmark": "mt_bench", "target": target.name, "configuration": target.digest}
    with Journal(folder / "answers.jsonl", about) as journal:
        answered = _kept_turns(journal)

        async def answer(key: str) -> Row:
            def keep(turns: list[Row]) -> None:
                journal.add(key, {"error": "interrupted", "turns": turns})

            return await _converse(target, items[key]["turns"], answered.get(key), keep)

        keys = {key: key for key in items}
        run(do_all(keys, answer, journal, title=target.name, at_once=at_once, quiet=quiet))
        done = {key: row for key in items if (row := journal.result(key))}
        _write_answers(target.name, [(items[key], row) for key, row in done.items()], folder)
        results(journal, items, "answers")
    return {str(items[key]["question_id"]): row for key, row in done.items()}


def _write_answers(name: str, answered: Iterable[tuple[Row, Row]], folder: Path) -> None:
    lines = [
        {
            "question_id": question["question_id"],
            "model_id": name,
            "choices": [{"index": 0, "turns": row["answers"]}],
        }
        for question, row in answered
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    replace(folder / "model_answer.jsonl", text)


def _kept_turns(journal: Journal) -> dict[str, list[Row]]:
    """Return the turns that were answered before a later turn failed."""
    return {key: row["turns"] for key, row in journal.failed.items() if row.get("turns")}


async def _converse(
    target: Target,
    turns: Sequence[str],
    kept: list[Row] | None,
    keep: Callable[[list[Row]], None],
) -> Row:
    conversation: list[BaseMessage] = []
    rows: list[Row] = list(kept or [])
    for i, said in enumerate(turns):
        conversation.append(HumanMessage(said))
        if i >= len(rows):
            try:
                rows.append(await target.ask(conversation))
            except AnswerFailed as error:
                spent = _totals([*rows, error.record])
                raise AnswerFailed(f"turn {i + 1}: {error}", {"turns": rows, **spent}) from error
            if i + 1 < len(turns):
                keep(rows)
        conversation.append(AIMessage(rows[i]["answer"]))
    return {"answers": [row["answer"] for row in rows], "turns": rows, **_totals(rows)}


def _totals(rows: Sequence[Row]) -> Row:
    costs = [row["cost"] for row in rows]
    return {"cost": None if None in costs else sum(costs), "calls": sum(r["calls"] for r in rows)}


def case(
    question: Row, answers: Sequence[str], references: Mapping[str, Sequence[str]], turn: int
) -> tuple[JudgePrompt, str]:
    """Return the prompt for the judge for one turn.

    Args:
        question: A row with `question_id`, `category` and `turns`.
        answers: The assistant's answers by turn.
        references: The result of `load_references`; used for math, reasoning and coding.
        turn: 1 or 2.

    Returns:
        The prompt, and the text of the user message.

    Raises:
        EvalError: If a required reference answer is missing.
    """
    key = str(question["question_id"])
    needs = question["category"] in WITH_REFERENCE
    if needs and len(references.get(key, ())) < turn:
        raise EvalError(f"There is no reference answer to question {key}, turn {turn}.")
    prompt = PROMPTS[turn, needs]
    filled: dict[str, str] = {}
    for i in range(turn):
        filled[f"question_{i + 1}"] = question["turns"][i]
        filled[f"answer_{i + 1}"] = answers[i]
        if needs:
            filled[f"ref_answer_{i + 1}"] = references[key][i]
    return prompt, prompt.template.format(**filled)


def judge(
    judging: Target,
    name: str,
    questions: Sequence[Row],
    answers: Mapping[str, Row],
    references: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    at_once: int = 8,
    quiet: bool = False,
) -> list[Row]:
    """Grade every turn of every answer.

    Args:
        judging: The judge.
        name: Name of the model that gave the answers.
        questions: The result of `load_questions`.
        answers: The result of `generate`.
        references: The result of `load_references`.
        folder: Output folder for the journal `judgments.jsonl`.
        at_once: Maximum number of gradings at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        Rows in FastChat's format: `question_id`, `model`, `judge`, `judgment`, `score`, `turn`. The
        score is -1 if the judgment has no rating.
    """
    cases: dict[str, Row] = {}
    for question in questions:
        row = answers.get(str(question["question_id"]), {})
        for turn in TURNS[: len(question["turns"])] if row.get("answers") else ():
            prompt, text = case(question, row["answers"], references, turn)
            cases[f"{question['question_id']}-{turn}-{digest([prompt.system, text])}"] = {
                "question_id": question["question_id"],
                "model": name,
                "judge": [judging.name, prompt.name],
                "turn": turn,
                "system": prompt.system,
                "user_prompt": text,
            }

    async def grade(asked: Row) -> Row:
        said = await judging.ask(
            [SystemMessage(asked["system"]), HumanMessage(asked["user_prompt"])]
        )
        graded = {field: value for field, value in asked.items() if field != "system"}
        return {
            **graded,
            "judgment": said["answer"],
            "score": rating(said["answer"]),
            "cost": said["cost"],
        }

    about = {"benchmark": "mt_bench", "model": name, "judge": judging.digest}
    with Journal(folder / "judgments.jsonl", about) as journal:
        run(do_all(cases, grade, journal, title="judge", at_once=at_once, quiet=quiet))
        return results(journal, cases, "gradings")
