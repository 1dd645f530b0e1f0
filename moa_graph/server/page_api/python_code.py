"""Python code that builds the mixture of a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moa_graph.building.members import is_layer
from moa_graph.presets.configuration import Configuration
from moa_graph.server.page_api.explicit import explicit

_WIDTH = 88
_INDENT = "    "
_OPTIONS = (
    "layers", "references", "limits", "calls", "stream_proposals", "name", "route", "progressive",
)  # fmt: skip


def python_code(configuration: Configuration) -> str:
    """Return code with `create_moa` that builds the same graph.

    Args:
        configuration: The mixture.
    """
    data = explicit(configuration)
    options = {name: data[name] for name in _OPTIONS if name in data}
    given = [_members(data["proposers"]), _Literal(data["aggregator"])]
    call = _call("create_moa", given, options)
    made = f"moa = {_written(call, 0, len('moa = '))}"
    used = [name for name in ("Layer", "Proposer") if f"{name}(" in made]
    ask = 'print(moa.invoke({"messages": "Why is the sky blue?"})["messages"][-1].text)'
    return f"from moa_graph import {', '.join([*used, 'create_moa'])}\n\n{made}\n\n{ask}\n"


class _Call:
    """A call in the code: its function, and its arguments as code or data."""

    def __init__(self, function: str, arguments: list[tuple[str, Any]]) -> None:
        self.function = function
        self.arguments = arguments


class _Literal:
    """Data that are written as they are."""

    def __init__(self, data: Any) -> None:
        self.data = data


def _call(function: str, positional: Iterable[Any], named: Mapping[str, Any]) -> _Call:
    given = [("", value) for value in positional]
    return _Call(function, [*given, *((f"{name}=", value) for name, value in named.items())])


def _members(value: Any) -> Any:
    """Return proposers or layers, with calls of `Layer` and `Proposer`."""
    if isinstance(value, list):
        return [_members(entry) for entry in value]
    if is_layer(value):
        rest = {name: inner for name, inner in value.items() if name != "proposers"}
        if "reserve" in rest:
            rest["reserve"] = _members(rest["reserve"])
        return _call("Layer", [_members(value["proposers"])], rest)
    if isinstance(value, Mapping):
        rest = {name: inner for name, inner in value.items() if name != "model"}
        return _call("Proposer", [value["model"]], rest)
    return value


def _written(value: Any, depth: int, column: int) -> str:
    """Return a value as code: in one line if it fits behind the column, else one part a line."""
    value = value.data if isinstance(value, _Literal) else value
    if isinstance(value, _Call):
        opening, closing, parts = f"{value.function}(", ")", value.arguments
    elif isinstance(value, list):
        opening, closing, parts = "[", "]", [("", inner) for inner in value]
    elif isinstance(value, Mapping):
        opening, closing = "{", "}"
        parts = [(f"{_text(name)}: ", inner) for name, inner in value.items()]
    else:
        return _text(value)
    flat = [name + _written(inner, 0, -1) for name, inner in parts]
    line = opening + ", ".join(flat) + closing
    if column < 0 or column + len(line) + 1 <= _WIDTH:
        return line
    inside = _INDENT * (depth + 1)
    lines = [
        f"{inside}{name}{_written(inner, depth + 1, len(inside) + len(name))},"
        for name, inner in parts
    ]
    return "\n".join([opening, *lines, _INDENT * depth + closing])


def _text(value: Any) -> str:
    if isinstance(value, str) and "'" not in repr(value)[1:-1] and '"' not in value:
        return f'"{repr(value)[1:-1]}"'
    return repr(value)
