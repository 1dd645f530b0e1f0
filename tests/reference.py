"""Writes `notebooks/reference.md`: every public name, from its docstring.

python -m tests.reference
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind, Parser

FILE = Path(__file__).parent.parent / "notebooks" / "reference.md"
MODULES = {
    "moa_graph": (),
    "moa_graph.strategies": (),
    "moa_graph.strategies.experimental": (),
    "moa_graph.presets": ("PRESETS", "load_preset"),
    "moa_graph.presets.configuration": ("Configuration",),
    "moa_graph.batch": ("answer_prompts", "Answers"),
}
"""The modules, and their public names; without any, those of `__all__`."""
HEAD = """\
# Reference

Every public name, from its docstring. Made by `python -m tests.reference`; a test checks that it is
up to date. The notebooks are the guides.
"""
_LISTS = {
    DocstringSectionKind.parameters: "Arguments",
    DocstringSectionKind.raises: "Raises",
    DocstringSectionKind.attributes: "Attributes",
}


def reference() -> str:
    """Return the page."""
    pages = [HEAD]
    for name, chosen in MODULES.items():
        module = import_module(name)
        summary = inspect.getdoc(module) or ""
        pages.append(f"## `{name}`\n\n{summary.splitlines()[0] if summary else ''}")
        for public in sorted(chosen or module.__all__, key=str.lower):
            pages += _described(public, getattr(module, public))
    return "\n\n".join(page.strip() for page in pages) + "\n"


def _described(name: str, found: Any) -> Iterator[str]:
    yield f"### `{name}`"
    if not (callable(found) or isinstance(found, type)) or isinstance(found, types.GenericAlias):
        yield f"A value of the type `{type(found).__name__}`."
        return
    yield f"```python\n{_signature(name, found)}\n```"
    yield _text(found)
    if not isinstance(found, type):
        return
    if fields := [f"- `{field}`: {_flat(said)}" for field, said in _fields(found)]:
        yield "\n".join(["**Fields**", "", *fields])
    for member, attribute in sorted(vars(found).items()):
        method = getattr(attribute, "__func__", attribute)
        if member.startswith("_") or not inspect.isfunction(method) or not method.__doc__:
            continue
        yield f"#### `{name}.{member}`\n\n{_text(method)}"


def _fields(found: type) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class that are followed by their documentation, or described in it."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    except (OSError, TypeError):
        return
    assert isinstance(body, ast.ClassDef)
    described = {
        name: field.description for name, field in getattr(found, "model_fields", {}).items()
    }
    for this, after in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(this, ast.AnnAssign) or not isinstance(this.target, ast.Name):
            continue
        name, said = this.target.id, None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said = after.value.value
        said = said or described.get(name)
        if said and not name.startswith("_"):
            yield name, said


def _signature(name: str, found: Any) -> str:
    """Return the call, with the arguments that the docstring describes."""
    documented = [
        parameter.name
        for section in _sections(found)
        if section.kind is DocstringSectionKind.parameters
        for parameter in section.value
    ]
    try:
        known = inspect.signature(found).parameters
    except ValueError:  # an exception without arguments of its own
        return name
    shown = [
        _parameter(argument, known[argument.lstrip("*")])
        for argument in documented
        if argument.lstrip("*") in known
    ]
    if not shown:
        return name
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= 88 else "\n".join([f"{name}(", *(f"    {s}," for s in shown), ")"])


def _parameter(name: str, parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return name
    plain = default is None or isinstance(default, bool | int | float | str)
    return f"{name}={default!r}" if plain else f"{name}=…"


def _text(found: Any) -> str:
    parts = []
    for section in _sections(found):
        if section.kind is DocstringSectionKind.text:
            parts.append(str(section.value))
        elif section.kind in _LISTS:
            rows = [f"- {_label(entry)}{_flat(entry.description)}" for entry in section.value]
            parts.append("\n".join([f"**{_LISTS[section.kind]}**", "", *rows]))
        elif section.kind in (DocstringSectionKind.returns, DocstringSectionKind.yields):
            said = " ".join(_flat(entry.description) for entry in section.value)
            parts.append(f"**{section.kind.value.capitalize()}**: {said}")
        elif section.kind is DocstringSectionKind.examples:
            parts += [_example(kind, text) for kind, text in section.value]
        elif section.kind is DocstringSectionKind.admonition:
            parts.append(section.value.description)  # an example, as a block of code
        else:
            raise ValueError(f"{section.kind} in the docstring of {found!r} has no form here.")
    return "\n\n".join(part.strip() for part in parts)


def _label(entry: Any) -> str:
    name = getattr(entry, "name", None) or getattr(entry, "annotation", None)
    return f"`{name}`: "


def _flat(text: str) -> str:
    return " ".join(text.split())


def _example(kind: DocstringSectionKind, text: str) -> str:
    return text if kind is DocstringSectionKind.text else f"```python\n{text}\n```"


def _sections(found: Any) -> list[Any]:
    text = inspect.getdoc(found) or ""
    return Docstring(text, parser=Parser.google).parse(
        returns_named_value=False, warn_unknown_params=False, warnings=False
    )


if __name__ == "__main__":
    FILE.write_text(reference())
