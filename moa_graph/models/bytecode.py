"""Inspect functions: their constants, the names they use, and whether a library defines them."""

from __future__ import annotations

import dis
import enum
import inspect
import sysconfig
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_LIBRARY = tuple(
    dict.fromkeys(str(Path(sysconfig.get_path(kind)).resolve()) for kind in ("purelib", "platlib"))
)

_STANDARD = str(Path(sysconfig.get_path("stdlib")).resolve())


def is_scalar(value: Any) -> bool:
    """Return whether a value is a scalar (number, string, bytes, enum member or None)."""
    return value is None or isinstance(value, bool | int | float | str | bytes | enum.Enum)


def is_data(value: Any) -> bool:
    """Return whether a value is a scalar, or a container of scalars at any depth."""
    if isinstance(value, Mapping):
        return all(map(is_data, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_data, value))
    return is_scalar(value)


def functions_in(member: Any) -> list[types.FunctionType]:
    """Return the functions in a class member: a method, or a property's getter and setter."""
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if isinstance(f, types.FunctionType)]
    inner = getattr(member, "__func__", getattr(member, "wrapped", member))
    inner = getattr(inner, "func", inner)  # functools.cached_property
    return [inner] if isinstance(inner, types.FunctionType) else []


def assigned_of(code: types.CodeType) -> set[str]:
    """Return the globals and attributes that a function assigns or deletes."""
    names = {
        str(i.argval)
        for i in dis.get_instructions(code)
        if i.opname in ("STORE_GLOBAL", "STORE_ATTR", "DELETE_GLOBAL", "DELETE_ATTR")
    }
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return names.union(*map(assigned_of, inner))


def names_in(code: types.CodeType) -> set[str]:
    """Return the global names and attributes that a function uses."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(names_in, inner))


def constants_of(code: types.CodeType) -> Any:
    """Return a function's instructions and constants, in a form equal in every process."""
    constants = [
        constants_of(c) if isinstance(c, types.CodeType) else [type(c).__name__, _written(c)]
        for c in code.co_consts
    ]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]


def _written(constant: Any) -> str:
    # The order of a set depends on the process.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def is_library(thing: type | Callable[..., Any]) -> bool:
    """Return whether a class or function belongs to Python or to an installed package."""
    module = inspect.getmodule(thing)
    name = getattr(module, "__name__", "")
    if name.partition(".")[0] == "moa_graph":
        return True
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return False
    if file is None:
        return True  # built in
    path = str(Path(file).resolve())
    return path.startswith((*_LIBRARY, _STANDARD))
