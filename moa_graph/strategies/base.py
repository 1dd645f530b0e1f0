"""The base of all strategies: they keep the arguments that they were made with."""

from __future__ import annotations

import inspect
from typing import Any, Self

from moa_graph.errors import check_names, represented_as


class Strategy:
    """A strategy is a value: it is shown, compared and written to a file by its arguments."""

    given: dict[str, Any]
    """The arguments that it was made with."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_names(cls.__init__, args, kwargs, cls.__name__)
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
