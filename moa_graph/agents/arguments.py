"""Check the arguments of `ChatMoA`, `MoAMiddleware` and `consult_tool`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, TypeVar

from langchain_core.runnables import Runnable

from moa_graph.building.compiled import MoAGraph
from moa_graph.context import MoAContext
from moa_graph.errors import check_call

T = TypeVar("T")

STANDARD = ("api_key", "timeout", "max_retries", "streaming")
"""LangChain's standard parameters of chat models that have no meaning for a mixture."""


def check_graph(moa: Any, owner: str) -> None:
    """Check that a value is a graph of `create_moa`.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(moa, MoAGraph):
        raise wrong_graph(f"{owner}(moa=…)", moa)


def wrong_graph(argument: str, given: Any) -> TypeError:
    """Return the error for a value that is not a graph of `create_moa`."""
    valid = argument.replace("moa=", "").replace("…", "create_moa([…], aggregator)")
    if isinstance(given, Runnable) and isinstance(graph := getattr(given, "graph", None), MoAGraph):
        valid = f"give its graph, {graph!r}"
    elif hasattr(given, "create"):
        valid = f"call its create(): {argument.replace('…', 'load_preset(…).create()')}"
    elif isinstance(given, str):
        valid += f", or {argument.replace('…', f'load_preset({given!r}).create()')}"
    return TypeError(
        f"{argument} must be a graph of create_moa, not {type(given).__name__}: {valid}."
    )


def arguments_checked(example: str, ignored: Collection[str] = ()) -> Callable[[type[T]], type[T]]:
    """Make a class reject unknown, missing and unnamed arguments with a suggestion.

    Args:
        example: A valid call, for the error.
        ignored: Arguments that are accepted and have no effect.
    """

    def checked(cls: type[T]) -> type[T]:
        initialize = cls.__init__

        @wraps(initialize)
        def init(self: T, *args: Any, **kwargs: Any) -> None:
            known = {name: value for name, value in kwargs.items() if name not in ignored}
            check_call(type(self), args, known, example=example)
            initialize(self, *args, **kwargs)

        cls.__init__ = init  # type: ignore[assignment, method-assign]
        return cls

    return checked


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
