"""Plain data that tells one mixture from another, also in another process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_core.runnables import Runnable

from moa_graph.models.fingerprint import NotFingerprintable, fingerprint
from moa_graph.models.model import Model
from moa_graph.models.numbering import number_of
from moa_graph.models.runnables import name_of

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def identity_of(value: Any) -> Any:
    """Return plain data that identifies a value: equal for equal values in every process.

    A model without a fingerprint, such as an agent, is identified by its name and by how many
    others with this name were seen before it in the process; so is a function.

    Args:
        value: An argument of `create_moa`, or a part of one.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): identity_of(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [identity_of(inner) for inner in value]
    if isinstance(value, Model):
        return value.data or identity_of(value.built)
    return _of_object(value)


def _of_object(value: Any) -> Any:
    if isinstance(value, Runnable):
        try:
            return ["model", fingerprint(value)]
        except NotFingerprintable:
            name = name_of(value)
            return ["model", name, number_of(value, name)]
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: identity_of(getattr(value, f.name)) for f in fields(value)}
        return [type(value).__qualname__, own]
    if hasattr(value, "__qualname__"):
        name = f"{value.__module__}.{value.__qualname__}"
        return [name, number_of(value, name)]
    return [type(value).__qualname__, _ADDRESS.sub("", repr(value))]
