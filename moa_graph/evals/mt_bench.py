"""MT-Bench: 80 questions of two turns in 8 categories, graded from 1 to 10 by a judge.

Zheng et al., "Judging LLM-as-a-Judge" (arXiv 2306.05685); the prompts are FastChat's
(`fastchat/llm_judge/data/judge_prompts.jsonl`, Apache-2.0), word for word.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
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
    read_results,
    read_rows,
    replace,
)
from moa_graph.evals.hub import download
from moa_graph.evals.tables import table
from moa_graph.evals.targets import AnswerFailed, Target
from moa_graph.evals.workers import do_all, results

TITLE = "MT-Bench"
CATEGORIES = (
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
)
WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories whose answers are graded beside a reference answer."""
TURNS = (1, 2)
_REPOSITORY = "lmsys/mt-bench"
_NO_SCORE = -1
_FIRST_QUESTION, _A_CATEGORY = 81, 10  # ids run from 81 to 160, ten a category
_LOWEST, _HIGHEST = 0, 10
_RATING = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))

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
    """The questions.

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
    """The reference answers by question, each by turn.

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
    """What is asked, by question and turn."""
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
    """The turns that were answered before a later one failed."""
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
    """What the judge is told of one turn.

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


def rating(judgment: str) -> float:
    """The rating in a judgment: the last `[[x]]`, else the last `[x]`; -1 if there is none."""
    for pattern in _RATING:
        if found := pattern.findall(judgment):
            value = float(found[-1])
            return int(value) if value.is_integer() else value
    return _NO_SCORE


def scores(rows: Sequence[Row], categories: Mapping[str, str] | None = None) -> dict[str, Row]:
    """The scores of each model in gradings.

    Args:
        rows: In FastChat's form, error rows and duplicates among them.
        categories: By question; the published ones by default.

    Returns:
        By model: `average` over all rows with a score, as FastChat's `show_result.py` gives it
        (so a row that is there twice counts twice; `average_once` counts each question and turn
        once, the last row of it), `first_turn`, `second_turn`, `categories` (by name), `n`,
        `without_score` (a list of question and turn), `duplicates` (likewise), and `differing`:
        rows whose recorded score is not what their judgment says.
    """
    found: dict[str, Row] = {}
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        mine = [row for row in rows if str(row["model"]) == model]
        scored = [row for row in mine if _score(row) != _NO_SCORE]
        places = Counter((_place(row), _judge(row)) for row in mine)
        once = {(_place(row), _judge(row)): row for row in scored}
        by_category: dict[str, list[float]] = {}
        for row in scored:
            by_category.setdefault(_category(row, categories), []).append(_score(row))
        found[model] = {
            "average": _mean(map(_score, scored)),
            "average_once": _mean(map(_score, once.values())),
            "first_turn": _mean(_score(row) for row in scored if str(row["turn"]) == "1"),
            "second_turn": _mean(_score(row) for row in scored if str(row["turn"]) != "1"),
            "judges": sorted({_judge(row) for row in mine}),
            "categories": {
                name: _mean(by_category[name]) for name in sorted(by_category, key=_nth)
            },
            "n": len(scored),
            "without_score": [_place(row) for row in mine if _score(row) == _NO_SCORE],
            "duplicates": [place for (place, _), times in places.items() if times > 1],
            "differing": [
                _place(row)
                for row in scored
                if row.get("judgment") is not None
                and not _same(_score(row), rating(str(row["judgment"])))
            ],
        }
    return found


def read_gradings(path: Path) -> list[Row]:
    """Recorded gradings, or the judgments of an earlier `moa eval mt-bench`.

    Raises:
        EvalError: If they are not in FastChat's form.
    """
    rows = [_identified(row) if "key" in row else row for row in read_results(path)]
    for i, row in enumerate(rows, 1):
        for field in ("question_id", "model", "turn"):
            if field not in row:
                raise EvalError(f"{path}, row {i}: has no field {field!r}.")
    return rows


def _identified(row: Row) -> Row:
    """A row of our own journal; one that failed has only its key."""
    question, _, rest = str(row["key"]).partition("-")
    turn = rest.partition("-")[0]
    known = {"question_id": question, "turn": int(turn) if turn.isdecimal() else 1}
    return {**known, "model": "unknown", **row}


def _score(row: Row) -> float:
    recorded = row.get("score")
    if recorded is None:
        return rating(str(row.get("judgment") or ""))
    if isinstance(recorded, str):
        recorded = _number(recorded)
    valid = isinstance(recorded, int | float) and not isinstance(recorded, bool)
    return recorded if valid and _LOWEST <= recorded <= _HIGHEST else _NO_SCORE


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _NO_SCORE


def _judge(row: Row) -> str:
    """Who graded, without the prompt that it was given."""
    judge = row.get("judge", "")
    return str(judge[0] if isinstance(judge, list | tuple) and judge else judge)


def _place(row: Row) -> str:
    return f"question {row['question_id']}, turn {row['turn']}"


def _category(row: Row, categories: Mapping[str, str] | None) -> str:
    key = str(row["question_id"])
    if categories and key in categories:
        return categories[key]
    place = int(key) - _FIRST_QUESTION if key.isdecimal() else -1
    return (
        CATEGORIES[place // _A_CATEGORY] if 0 <= place < _A_CATEGORY * len(CATEGORIES) else "other"
    )


def _nth(category: str) -> int:
    return CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-9  # noqa: PLR2004


def report(found: Mapping[str, Row]) -> str:
    """The scores as tables, and what was left out of them."""
    ranked = sorted(found, key=lambda model: -(found[model]["average"] or 0))
    names = list(dict.fromkeys(name for m in ranked for name in found[m]["categories"]))
    parts = [
        table(
            ["model", "score", "turn 1", "turn 2", "gradings", "without score", "duplicates"],
            [
                [
                    model,
                    *(_three(found[model][k]) for k in ("average", "first_turn", "second_turn")),
                    found[model]["n"],
                    len(found[model]["without_score"]),
                    len(found[model]["duplicates"]),
                ]
                for model in ranked
            ],
        ),
        "",
        table(
            ["category", *ranked],
            [[c, *(_three(found[m]["categories"].get(c)) for m in ranked)] for c in names],
        ),
    ]
    for model in ranked:
        row = found[model]
        if len(row["judges"]) > 1:
            parts += ["", f"{model}: averaged over several judges: {', '.join(row['judges'])}."]
        if places := row["without_score"]:
            parts += ["", f"{model}: no score, left out of the averages: {'; '.join(places)}."]
        if places := row["duplicates"]:
            once = _three(row["average_once"])
            said = f"graded more than once, and counted each time as FastChat does ({once} if once)"
            parts += ["", f"{model}: {said}: {'; '.join(places)}."]
        if places := row["differing"]:
            parts += [
                "",
                f"{model}: the recorded score is not the judgment's: {'; '.join(places)}.",
            ]
    return "\n".join(parts)


def _three(value: float | None) -> str | None:
    # Halves go up, as in published tables.
    return (
        None
        if value is None
        else str(Decimal(repr(value)).quantize(Decimal("0.001"), "ROUND_HALF_UP"))
    )
