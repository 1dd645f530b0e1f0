"""Parse the ratings in FLASK reviews."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

from moa_graph.evals.files import (
    EvalError,
    Row,
    read_results,
    short,
)

_LOWEST, _HIGHEST = 1, 5

TEXTS = ("review", "text", "judgment")

_NOT_RATED = {"n/a", "na", "not applicable"}

_DICTIONARY = re.compile(r"{[^{}]+}")


def read_reviews(path: Path) -> list[Row]:
    """Read recorded reviews.

    Args:
        path: A JSON or JSON Lines file with `review`, and with `idx` and `skill` as in the
            evaluation set.

    Raises:
        EvalError: If a row has no review, or one that is not a string.
    """
    rows = [
        {"idx": str(row["key"]).partition("-")[0], **row} if {"key", "error"} <= row.keys() else row
        for row in read_results(path)
    ]
    for i, row in enumerate(rows, 1):
        if not {*TEXTS, "error"} & row.keys():
            raise EvalError(f"{path}, row {i}: has no field 'review'. It has: {', '.join(row)}.")
        name = next((name for name in TEXTS if name in row), None)
        if name and not row.get("error") and not isinstance(row[name], str):
            raise EvalError(f"{path}, row {i}: {name!r} must be a string, not {short(row[name])}.")
    return rows


def ratings(review: str) -> dict[str, float | None]:
    """Return the ratings at the end of a review, written as a Python dictionary.

    Args:
        review: The whole review. The last dictionary in it counts. It is parsed, never executed.

    Returns:
        Ratings by skill, as the reviewer wrote the skill, in lower case. A rating is None if the
        review says that the skill does not apply.

    Raises:
        ValueError: If there is no dictionary, or a value is not a number from 1 to 5.
    """
    found, wrong, absent = read_ratings(review)
    wrong |= dict.fromkeys(absent, "has no rating")
    if wrong:
        raise ValueError("; ".join(f"{skill}: {why}" for skill, why in wrong.items()))
    return found


def read_ratings(review: str) -> tuple[dict[str, float | None], dict[str, str], list[str]]:
    """Return the valid ratings, the errors by skill, and the skills without a rating."""
    parts = [part.replace("_", " ").lower() for part in _DICTIONARY.findall(review)]
    if not parts:
        return {}, {"": "the review has no dictionary of ratings"}, []
    read = next(filter(None, map(_dictionary, reversed(parts))), None)
    if read is None:
        return {}, {"": f"the dictionary cannot be read: {parts[-1][:80]}"}, []
    found: dict[str, float | None] = {}
    wrong: dict[str, str] = {}
    absent: list[str] = []
    for skill, given in read:
        name = " ".join(str(skill).split())
        if name in found or name in wrong:
            found.pop(name, None)
            wrong[name] = "is rated twice"
        elif given is None:
            absent.append(name)
        elif isinstance(given, str) and given.strip() in _NOT_RATED:
            found[name] = None
        elif (value := _rating(given)) is None:
            wrong[name] = f"{given!r} is not a rating from {_LOWEST} to {_HIGHEST}"
        else:
            found[name] = value
    return found, wrong, absent


def _dictionary(text: str) -> list[tuple[Any, Any]] | None:
    """Return the items of a dictionary literal, including duplicate keys; None if invalid."""
    for form in (text, text.replace("\n", " ")):  # newlines end comments but may split a skill
        try:
            node = ast.parse(form, mode="eval").body
            if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
                pairs = zip(node.keys, node.values, strict=True)
                return [(_literal(key), _literal(value)) for key, value in pairs if key]
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
    return None


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal, None for `none`, `null` and `nan`, or else the source text."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        text = ast.unparse(node)
        return None if text in {"none", "null", "nan"} else text.replace(" ", "")


def _rating(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        value = float(given)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and _LOWEST <= value <= _HIGHEST else None
