"""Base class of all strategies. It stores the constructor's arguments."""

from __future__ import annotations

import inspect
from typing import Any, Self

from moa_graph.errors import check_names, represented_as


class Strategy:
    """A value object: its arguments define its repr, its equality and its form in a file."""

    given: dict[str, Any]
    """Arguments passed to the constructor."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_names(cls.__init__, kwargs, cls.__name__)
        strategy = super().__new__(cls)
        parameters = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs)
        strategy.given = dict(list(parameters.arguments.items())[1:])
        return strategy

    def __repr__(self) -> str:
        return represented_as(type(self).__name__, self.given)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.given == self.given

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.given)))
