"""Scores of MT-Bench and their report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from moa_graph.evals.files import (
    EvalError,
    Row,
    read_results,
)
from moa_graph.evals.tables import table

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

_NO_SCORE = -1

_FIRST_QUESTION, _A_CATEGORY = 81, 10  # ids run from 81 to 160, ten for each category

_LOWEST, _HIGHEST = 0, 10

_RATING = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def rating(judgment: str) -> float:
    """Return the rating in a judgment: the last `[[x]]`, else the last `[x]`, else -1."""
    for pattern in _RATING:
        if found := pattern.findall(judgment):
            value = float(found[-1])
            return int(value) if value.is_integer() else value
    return _NO_SCORE


def scores(rows: Sequence[Row], categories: Mapping[str, str] | None = None) -> dict[str, Row]:
    """Compute the scores of each model.

    Args:
        rows: Gradings in FastChat's format; may include error rows and duplicates.
        categories: Categories by question; the published categories by default.

    Returns:
        Results by model. `average` is over all rows with a score, as in FastChat's
        `show_result.py`, so a duplicate row counts twice. `average_once` uses only the last row of
        each question, turn and judge. `first_turn`, `second_turn` and `categories` (by name) are
        averages of a part of the rows. `judges` lists the judges, and `n` is the number of scores.
        `range` is the lowest and the highest score, if one is outside 0 to 10.
        `without_score` and `duplicates` list questions and turns. `differing` lists rows with a
        recorded score that differs from the rating in the judgment.
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
            "range": _range(scored),
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
    """Read recorded gradings, or the judgments of an earlier `moa eval mt-bench`.

    Raises:
        EvalError: If a row is not in FastChat's format.
    """
    rows = [_identified(row) if "key" in row else row for row in read_results(path)]
    for i, row in enumerate(rows, 1):
        for field in ("question_id", "model", "turn"):
            if field not in row:
                raise EvalError(f"{path}, row {i}: has no field {field!r}.")
        if not _is_valid(row.get("score")):
            raise EvalError(
                f"{path}, row {i}: `score` is {row['score']!r:.60}, but must be a finite number, "
                "or -1 if there is no score."
            )
    return rows


def _is_valid(score: Any) -> bool:
    """Return whether a recorded score is a finite number, a text of one, or absent."""
    if score is None:
        return True
    number = _number(score) if isinstance(score, str) else score
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return math.isfinite(number)


def _identified(row: Row) -> Row:
    """Return a journal row with question, turn and model; a failed row has only a key."""
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
    return recorded if _is_valid(recorded) else _NO_SCORE


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _range(scored: Sequence[Row]) -> tuple[float, float] | None:
    """Return the lowest and the highest score, if one is not on MT-Bench's scale."""
    values = [_score(row) for row in scored]
    if all(_LOWEST <= value <= _HIGHEST for value in values):
        return None
    return min(values), max(values)


def _judge(row: Row) -> str:
    """Return the name of the judge, without the name of its prompt."""
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
    """Return the scores as tables, with lists of the excluded rows."""
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
        if row.get("range"):
            lowest, highest = row["range"]
            found_scale = f"the scores run from {lowest:g} to {highest:g}"
            said = f"which is not MT-Bench's scale of 1 to {_HIGHEST}"
            parts += ["", f"**WARNING: {model}: {found_scale}, {said}.**"]
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
    # Round half up, as in the published tables.
    return (
        None
        if value is None
        else str(Decimal(repr(value)).quantize(Decimal("0.001"), "ROUND_HALF_UP"))
    )
