"""Read the records that a node has written, from events or from the graph itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.types import Overwrite


def records_in(written: Mapping[str, Any], field: str) -> list[Any]:
    """Return the records that a node has written into a field of the state.

    A node may write `Overwrite(records)`, which the servers' events have as an object.

    Args:
        written: What the node has written.
        field: Field of the state, such as `"proposals"`.
    """
    found = written.get(field)
    if isinstance(found, Overwrite):
        found = found.value
    elif isinstance(found, Mapping):
        found = found.get("value")
    return [*found] if isinstance(found, list | tuple) else []
