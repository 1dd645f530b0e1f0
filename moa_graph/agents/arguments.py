"""Check the arguments of `MoAMiddleware` and `consult_tool`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moa_graph.building.compiled import MoAGraph
from moa_graph.context import MoAContext


def check_graph(moa: Any, owner: str) -> None:
    """Check that a value is a graph of `create_moa`.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(moa, MoAGraph):
        raise TypeError(
            f"{owner}(moa=…) must be a graph of create_moa, not {type(moa).__name__}: "
            f"{owner}(create_moa([…], aggregator))."
        )


def checked_uses(given: Any, owner: str) -> Any:
    """Return `max_uses` after checking it.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """
    if given is None and owner == "MoAMiddleware":
        return None
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{owner}(max_uses={given!r}) must be an integer of at least 1.")
    if given < 1:
        raise ValueError(f"{owner}(max_uses={given}) must be at least 1.")
    return given


def as_context(given: Any) -> MoAContext:
    """Return the settings of each run of the proposers.

    Raises:
        TypeError: If they are neither a `MoAContext` nor a mapping with its fields.
        pydantic.ValidationError: If a field is unknown or its value is out of range.
    """
    if given is None or isinstance(given, Mapping):
        return MoAContext(**(given or {}))
    if not isinstance(given, MoAContext):
        raise TypeError(
            f"MoAMiddleware(context={given!r}) must be a MoAContext, such as "
            "MoAContext(proposer_temperature=1)."
        )
    return given
