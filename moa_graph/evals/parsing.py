"""Parse the answer in the reply of a model, without executing it."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_BOXED = re.compile(r"\\boxed{([\w\d]+)}")
_SHORTEST_REPEAT = 4
_LONGEST_SUM = 200  # characters; a longer expression is not an answer
_LARGEST_POWER = 1000

_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def final_answer(reply: str, model: str = "") -> str | None:
    """Return the `answer` of a reply in JSON with `reasoning` and `answer`.

    The first complete JSON object counts. Without one, the text after `"answer":` counts. For
    Llama 3.1, the content of a LaTeX `boxed` command is accepted too.

    Args:
        reply: The whole reply.
        model: Name of the model.

    Returns:
        The answer as written; None if there is no answer.

    Source: ZeroEval (WildEval), `src/evaluation`.
    """
    found = _first_object(reply)
    if found is not None and "answer" in found:
        return str(found["answer"])
    if (value := _value_of("answer", reply)) is not None:
        return value
    if "Llama-3.1" in model and "boxed" in reply[-30:] and (boxed := _BOXED.search(reply)):
        return boxed[1]
    return None


def number_in(answer: str) -> float | None:
    """Return the first number in an answer; dollar signs and thousands separators are ignored.

    An expression with `/` is evaluated (`"3/4"` is 0.75). It may have only numbers and the
    operators `+ - * / // ** %`. No code is executed.

    Args:
        answer: The answer, such as `"$1,200"`.

    Returns:
        The number, such as 1200.0; None if there is no number.
    """
    text = answer.replace("$", "").strip().replace(",", "")
    if "/" in text and (value := arithmetic(text)) is not None:
        text = str(value)
    found = _NUMBER.search(text)
    return float(found.group()) if found else None


def arithmetic(text: str) -> float | None:
    """Return the value of an arithmetic expression; None if the text is not one.

    Args:
        text: The expression, such as `"(3 + 4) / 2"`.
    """
    if len(text) > _LONGEST_SUM:
        return None
    try:
        value = float(_worked_out(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, TypeError, MemoryError, RecursionError):
        return None
    return value if math.isfinite(value) else None


def _worked_out(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_worked_out(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _worked_out(node.left), _worked_out(node.right)
        if isinstance(node.op, ast.Pow) and max(abs(left), abs(right)) > _LARGEST_POWER:
            raise ValueError("too large")
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("not a sum")


def _first_object(text: str) -> dict[str, Any] | None:
    """Return the first `{…}` with balanced braces, if it is a JSON object.

    Braces inside of strings count too, as in ZeroEval. A stricter parser would not reproduce the
    published accuracies.
    """
    depth, start = 0, 0
    for i, sign in enumerate(text):
        if sign == "{":
            start = i if depth == 0 else start
            depth += 1
        elif sign == "}" and depth:
            depth -= 1
            if depth == 0:
                try:
                    found = json.loads(text[start : i + 1].replace("\n", ""))
                except (ValueError, RecursionError):  # not JSON, or too deep, or a huge integer
                    return None
                return found if isinstance(found, dict) else None
    return None


def _value_of(key: str, text: str) -> str | None:
    """Return the text after a key in broken JSON."""
    for pattern, flags in (
        (rf'"{key}"\s*:\s*"([^"]*?)"', 0),
        (rf'"{key}"\s*:\s*"(.*?)"', re.DOTALL),
        (rf'"{key}"\s*:\s*([^,\s]*)', 0),
        (rf"{key}\s*:\s*([^,\s]*)", 0),
    ):
        if found := re.search(pattern, text, flags):
            return found[1]
    return None
