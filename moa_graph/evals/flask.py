"""FLASK: 1,740 instructions; a reviewer rates the skills of each instruction from 1 to 5.

Ye et al., "FLASK: Fine-grained Language Model Evaluation based on Alignment Skill Sets"
(arXiv 2307.10928). The evaluation set, the review prompt and the skills' descriptions are read from
a copy of the authors' repository (kaistAI/FLASK), which states no licence.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage

from moa_graph.calling.sync import run
from moa_graph.evals.files import (
    EvalError,
    Journal,
    Row,
    by_key,
    digest,
    is_text,
    read_rows,
)
from moa_graph.evals.flask_reviews import TEXTS, read_ratings
from moa_graph.evals.tables import table
from moa_graph.evals.targets import Target
from moa_graph.evals.workers import do_all, results

TITLE = "FLASK"
SKILLS = (
    "Logical Robustness",
    "Logical Correctness",
    "Logical Efficiency",
    "Factuality",
    "Commonsense Understanding",
    "Comprehension",
    "Insightfulness",
    "Completeness",
    "Metacognition",
    "Readability",
    "Conciseness",
    "Harmlessness",
)
_MOST_TOLD = 100
_TOLD = {
    "duplicates": "several reviews, all averaged in",
    "unreviewed": "without a review",
    "malformed": "malformed, not averaged in",
    "missing": "missing, not averaged in",
    "not_applicable": "not applicable, not averaged in",
}
_WHERE = "Clone https://github.com/kaistAI/FLASK, or that folder of togethercomputer/MoA."
_FILES = {
    "questions": ("flask_evaluation.jsonl", "flask_evaluation.jsonl.gz"),
    "hard questions": ("flask_hard_evaluation.jsonl", "flask_hard_evaluation.jsonl.gz"),
    "prompt": ("prompt.jsonl", "review_prompt.jsonl"),
    "skills": ("skillset_description.json",),
}
_FOLDERS = (".", "evaluation_set", "gpt_review/src", "metadata_annotation/skillset/src")
_PROMPT = 2  # the prompt of the authors that includes the sample answer


@dataclass(frozen=True)
class FlaskData:
    """Evaluation set, review prompt and descriptions of the skills."""

    questions: Sequence[Row]
    prompt: Row
    skills: Sequence[Row]


def load(folder: Path, *, hard: bool = False) -> FlaskData:
    """Read a copy of the repository, or a folder with its files.

    Args:
        folder: Folder with `flask_evaluation.jsonl`, `prompt.jsonl` (or `review_prompt.jsonl`) and
            `skillset_description.json`, either in the folders of the repository or in one folder.
        hard: Whether to use the hard subset of 89 instructions.

    Raises:
        EvalError: If a file is missing or not in the published format.
    """
    path = _find(folder, "hard questions" if hard else "questions")
    questions = [
        {**row, "skill": _asked_for(row["skill"])}
        for row in read_rows(path, ["idx", "instruction", "answer", "skill"])
    ]
    by_key(questions, lambda row: str(row["idx"]), str(path))
    for row in questions:
        if not is_text(row["instruction"]):
            raise EvalError(f"{path}: the instruction of {row['idx']} must be a string.")
        if unknown := [name for name in row["skill"] or [""] if _skill(name) is None]:
            raise EvalError(
                f"{path}: {unknown[0]!r} of {row['idx']} is not a skill of FLASK. There are: "
                f"{', '.join(SKILLS)}."
            )
    path = _find(folder, "prompt")
    prompts = read_rows(path, ["prompt_id", "system_prompt", "prompt_template", "defaults"])
    prompt = next((row for row in prompts if row["prompt_id"] == _PROMPT), None)
    if prompt is None:
        raise EvalError(f"{path} has no prompt with the id {_PROMPT}.")
    path = _find(folder, "skills")
    skills = read_rows(path, ["Skill", "Criteria", "Scoring"])
    for name in {name for row in questions for name in row["skill"]}:
        if _described(name, skills) is None:
            raise EvalError(f"{path} does not describe the skill {name!r}.")
    return FlaskData(questions, prompt, skills)


def _described(name: str, skills: Sequence[Row]) -> Row | None:
    return next((s for s in skills if _skill(name) == _skill(s["Skill"])), None)


def _asked_for(skill: Any) -> list[str]:
    """Return the skills of an item, given as a list, a list literal in a string, or one name."""
    if isinstance(skill, str):
        try:
            read = ast.literal_eval(skill) if skill.lstrip().startswith("[") else [skill]
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            read = [skill]
        skill = read
    return [str(name) for name in skill] if isinstance(skill, list) else []


def _find(folder: Path, what: str) -> Path:
    for place in _FOLDERS:
        for name in _FILES[what]:
            if (path := folder / place / name).is_file():
                return path
    raise EvalError(f"{folder} has no {_FILES[what][0]} of FLASK. {_WHERE}")


def generate(
    target: Target, data: FlaskData, folder: Path, *, at_once: int = 8, quiet: bool = False
) -> dict[str, Row]:
    """Answer every instruction.

    Args:
        target: The target to evaluate.
        data: The result of `load`.
        folder: Output folder for the journal `answers.jsonl`.
        at_once: Maximum number of instructions at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        Rows with `answer`, by `idx`.

    Raises:
        EvalFailed: If some answers failed; the others are kept.
    """
    items = {f"{q['idx']}-{digest(q['instruction'])}": q for q in data.questions}
    about = {"benchmark": "flask", "target": target.name, "configuration": target.digest}

    async def answer(question: Row) -> Row:
        return await target.ask([HumanMessage(question["instruction"])])

    with Journal(folder / "answers.jsonl", about) as journal:
        run(do_all(items, answer, journal, title=target.name, at_once=at_once, quiet=quiet))
        rows = results(journal, items, "answers")
    return {str(q["idx"]): row for q, row in zip(items.values(), rows, strict=True)}


def review_prompt(question: Row, response: str, data: FlaskData) -> str:
    """Return the review prompt for one response."""
    described = []
    for asked in question["skill"]:
        skill = _described(asked, data.skills)
        assert skill is not None  # checked in `load`
        scoring = "".join(f"\nScore {n}: {skill['Scoring'][str(n)]}" for n in range(1, 6))
        described.append(f"\n{skill['Skill']}: {skill['Criteria']}{scoring}\n\n")
    return str(data.prompt["prompt_template"]).format(
        question=question["instruction"],
        response=response,
        skills="".join(described),
        num=len(question["skill"]),
        sample_answer=question["answer"],
        **data.prompt["defaults"],
    )


def review(
    judging: Target,
    name: str,
    data: FlaskData,
    answers: Mapping[str, Row],
    folder: Path,
    *,
    at_once: int = 8,
    quiet: bool = False,
) -> list[Row]:
    """Ask the reviewer to rate the skills of every answer.

    Args:
        judging: The reviewer.
        name: Name of the model that gave the answers.
        data: The result of `load`.
        answers: The result of `generate`.
        folder: Output folder for the journal `reviews.jsonl`.
        at_once: Maximum number of reviews at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        Rows in the published format: `idx`, `skill`, `target_txt`, `review` …
    """
    items: dict[str, Row] = {}
    for question in data.questions:
        answer = answers.get(str(question["idx"]), {}).get("answer")
        if answer is not None:
            text = review_prompt(question, answer, data)
            asked = {**question, "target_txt": answer, "prompt": text}
            items[f"{question['idx']}-{digest(text)}"] = asked

    async def ask(asked: Row) -> Row:
        said = await judging.ask(
            [SystemMessage(data.prompt["system_prompt"]), HumanMessage(asked["prompt"])]
        )
        row = {field: value for field, value in asked.items() if field != "prompt"}
        return {**row, "model": name, "review": said["answer"], "cost": said["cost"]}

    about = {"benchmark": "flask", "model": name, "judge": judging.digest}
    with Journal(folder / "reviews.jsonl", about) as journal:
        run(do_all(items, ask, journal, title="review", at_once=at_once, quiet=quiet))
        return results(journal, items, "reviews")


def _text(row: Row) -> Any:
    return next((row[name] for name in TEXTS if name in row), None)


def scores(rows: Sequence[Row], questions: Sequence[Row] = ()) -> Row:
    """Return the mean rating of each skill.

    Args:
        rows: Reviews, the result of `read_reviews` or `review`.
        questions: The evaluation set, for reviews without the field `skill`.

    Returns:
        `skills` (means by skill), `counts` (numbers of ratings by skill), and the lists
        `malformed`, `missing` and `not_applicable`. Each entry of these lists names the item and
        the skill, and does not count in the means. A rating of a skill that the item does not ask
        for is malformed. `duplicates` lists items with several reviews, which all count.
        `unreviewed` lists items of `questions` without a review.
    """
    asked_by = {str(q["idx"]): q["skill"] for q in questions}
    given: defaultdict[str, list[float]] = defaultdict(list)
    malformed: list[str] = []
    missing: list[str] = []
    not_applicable: list[str] = []
    times: Counter[str] = Counter()
    for i, row in enumerate(rows, 1):
        key = next((str(row[n]) for n in ("idx", "question_id") if row.get(n) is not None), f"#{i}")
        times[key] += 1
        skills = _asked_for(row.get("skill")) or asked_by.get(key)
        asked = {_skill(name) or name for name in skills} if skills else None
        found, wrong, absent = read_ratings(str(_text(row) or ""))
        for name, why in wrong.items():
            malformed.append(f"item {key}: {name + ': ' if name else ''}{why}")
        seen = {_skill(name) for name in wrong}
        for name, value in found.items():
            skill = _skill(name)
            if skill is None:
                malformed.append(f"item {key}: {name!r} is not a skill of FLASK")
                continue
            if skill in seen:
                malformed.append(f"item {key}: {skill} is rated twice")
                continue
            seen.add(skill)
            if asked is not None and skill not in asked:
                malformed.append(f"item {key}: {skill} was not asked for")
            elif value is None:
                not_applicable.append(f"item {key}: {skill}")
            else:
                given[skill].append(value)
        expected = asked or {_skill(name) or name for name in absent}
        missing += [f"item {key}: {skill}" for skill in sorted(expected) if skill not in seen]
    return {
        "skills": {s: sum(given[s]) / len(given[s]) for s in SKILLS if given.get(s)},
        "counts": {s: len(given[s]) for s in SKILLS if given.get(s)},
        "reviews": len(rows),
        "duplicates": [f"item {key}: {n} reviews" for key, n in times.items() if n > 1],
        "unreviewed": [f"item {key}" for key in asked_by if key not in times],
        "malformed": malformed,
        "missing": missing,
        "not_applicable": not_applicable,
    }


def _skill(name: str) -> str | None:
    """Return the skill for its full name or its distinctive word; None if unknown."""
    text = " ".join(str(name).replace("_", " ").lower().split())
    for skill in SKILLS:
        whole = skill.lower()
        word = whole.split()[1] if whole.startswith("logical ") else whole.split()[0]
        if text in {whole, word}:
            return skill
    return None


def report(found: Mapping[str, Row]) -> str:
    """Return the scores of each model as a table, with lists of the excluded ratings."""
    parts = [
        table(
            ["skill", *found],
            [[skill, *(row["skills"].get(skill) for row in found.values())] for skill in SKILLS],
        )
    ]
    for name, row in found.items():
        counted = sum(row["counts"].values())
        parts += ["", f"{name}: {row['reviews']} reviews, {counted} ratings."]
        for what, told in _TOLD.items():
            if row[what]:
                parts.append(f"{told} ({len(row[what])}):")
                parts += [f"  - {sentence}" for sentence in row[what][:_MOST_TOLD]]
                if more := row[what][_MOST_TOLD:]:
                    parts.append(f"  - … and {len(more)} more (--json has all)")
    return "\n".join(parts)
