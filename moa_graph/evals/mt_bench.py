"""MT-Bench: 80 questions of two turns in 8 categories, graded from 1 to 10 by a judge.

Zheng et al., "Judging LLM-as-a-Judge" (arXiv 2306.05685); the prompts are FastChat's
(`fastchat/llm_judge/data/judge_prompts.jsonl`, Apache-2.0), word for word.
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
"""Categories whose answers are graded beside a reference answer."""
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
    """One of the published prompts: its name, and what the judge is told."""

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
"""By turn, and whether there is a reference answer."""


def load_questions(path: Path | None = None) -> list[Row]:
    """Return the questions.

    Args:
        path: JSON Lines with `question_id`, `category` and `turns`; from the hub by default.

    Raises:
        EvalError: If they cannot be had, or are not in that form.
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
    """Return the reference answers by question, each by turn.

    Args:
        path: JSON Lines with `question_id` and `choices`; from the hub by default.
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
    """Return what is asked, by question and turn."""
    return {str(q["question_id"]): list(q["turns"]) for q in questions}


def generate(
    target: Target,
    questions: Sequence[Row],
    folder: Path,
    *,
    at_once: int = 8,
    quiet: bool = False,
) -> dict[str, Row]:
    """Answer the questions, every turn after the answers before it.

    Args:
        target: What answers.
        questions: As from `load_questions`.
        folder: Gets the journal `answers.jsonl`, and `model_answer.jsonl` in FastChat's form.
        at_once: How many questions at the same time.
        quiet: Whether to show no progress.

    Returns:
        By question, a row with `answers`, one a turn.

    Raises:
        EvalFailed: If some failed; the others are kept and written.
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
    """Return the turns that were answered before a later one failed."""
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
    """Return what the judge is told of one turn.

    Args:
        question: With `question_id`, `category` and `turns`.
        answers: The assistant's, by turn.
        references: As from `load_references`; used for math, reasoning and coding.
        turn: 1 or 2.

    Returns:
        The prompt, and its text for the user message.

    Raises:
        EvalError: If the reference answer that it needs is not there.
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
        name: Whose answers they are.
        questions: As from `load_questions`.
        answers: As from `generate`.
        references: As from `load_references`.
        folder: Gets the journal `judgments.jsonl`.
        at_once: How many gradings at the same time.
        quiet: Whether to show no progress.

    Returns:
        Rows in FastChat's form: `question_id`, `model`, `judge`, `judgment`, `score`, `turn`; the
        score is -1 where a judgment has none.
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
