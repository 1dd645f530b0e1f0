"""Tables of which the default run tries a sample; `-m "full or not full"` tries all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(rows: Sequence[Any], columns: Sequence[Any], shift: int = 0, ids: Any = None) -> Any:
    """Parameters for each pair of a row and a column; by default each row has one column.

    Args:
        rows: The values of the first argument.
        columns: Those of the second.
        shift: Which column the first row has by default.
        ids: Names of the rows; by default what they are as strings.
    """
    names = list(ids or map(str, rows))
    return [
        pytest.param(
            row,
            column,
            id=f"{names[i]}-{column if isinstance(column, str) else k}",
            marks=[] if (i + shift) % len(columns) == k else [pytest.mark.full],
        )
        for i, row in enumerate(rows)
        for k, column in enumerate(columns)
    ]
