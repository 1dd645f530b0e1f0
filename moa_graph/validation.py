"""What is wrong with a configuration, in one line for people."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping

from pydantic import ValidationError


def what_is_wrong(error: ValidationError, schema: type, entries: Mapping[str, type]) -> str:
    """What is wrong with which field, without the values: a key may be among them.

    Args:
        error: What pydantic raised.
        schema: What it validated for.
        entries: What stands in fields that have fields of their own, by the field's name.
    """
    problems: dict[str, str] = {}
    unknown: list[str] = []
    names = {"str", "int", *(entry.__name__ for entry in entries.values())}
    for detail in error.errors(include_input=False, include_url=False):
        # Of a field with alternatives pydantic reports each; the field is what matters.
        steps = [s for s in detail["loc"] if not (isinstance(s, str) and (s in names or "[" in s))]
        place = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).lstrip(".")
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            entry = entries.get(str(steps[0]), schema) if len(steps) > 1 else schema
            fields = list(inspect.signature(entry).parameters)
            near = nearest(str(steps[-1]), fields)
            unknown.append(f"unknown field {place!r}.{near} Fields are: {', '.join(fields)}")
        elif place not in problems or detail["type"] == "value_error":
            said = detail["msg"].removeprefix("Value error, ")
            problems[place] = f"{place}: {said}"  # a sentence of ours says most
    return "; ".join(dict.fromkeys(unknown) or problems.values()).rstrip(".") + "."


def nearest(word: str, words: Iterable[str]) -> str:
    """A question whether the nearest of these words was meant; empty if none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
