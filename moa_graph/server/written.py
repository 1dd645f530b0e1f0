"""Read the records that a node has written, from events or from the graph itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moa_graph.building.written import overwritten


def records_in(written: Mapping[str, Any], field: str) -> list[Any]:
    """Return the records that a node has written into a field of the state.

    A node may write `Overwrite(records)`, which the servers' events have as an object.

    Args:
        written: What the node has written.
        field: Field of the state, such as `"proposals"`.
    """
    _, found = overwritten(written.get(field))
    return [*found] if isinstance(found, list | tuple) else []
