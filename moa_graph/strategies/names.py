"""Registry of strategies by name: the built-in ones, and those that a user registers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Literal, TypeAlias, TypeVar, overload

from moa_graph.errors import nearest, represented_as
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.strategies.analyse import Analyse
from moa_graph.strategies.numerals import last_number
from moa_graph.strategies.peer_review import PeerReview
from moa_graph.strategies.rank import MostCentral, Rank
from moa_graph.strategies.residual import Residual
from moa_graph.strategies.robust import ClusterAndFilter, DropoutAndCluster, DropoutAndVote
from moa_graph.strategies.route import Route
from moa_graph.strategies.select import (
    Deduplicate,
    Diverse,
    Shuffle,
    TopK,
    Tree,
)
from moa_graph.strategies.sequential import SelfMoASeq
from moa_graph.strategies.similarity import normalize
from moa_graph.strategies.until import Agree, JudgedAgreement, Similar, Unchanged
from moa_graph.strategies.vote import Vote

F = TypeVar("F", bound=Callable[..., Any])

Place: TypeAlias = Literal["select", "until", "aggregator", "route", "progressive", "parse"]
"""Argument that a strategy is for; `"parse"` is for functions from a text to an answer."""

ENTRY_POINTS = "moa_graph.strategies"
"""Entry point group with modules that register strategies; loaded when a name is unknown."""

_POSITIONAL = {"select": 2, "until": 2, "aggregator": 2, "route": 1, "parse": 1}

SIGNATURES = {
    "select": "async def select(references, run) -> list[Proposal]",
    "until": "async def until(references, run) -> bool",
    "aggregator": "async def aggregate(references, run) -> str",
    "route": "async def route(run) -> str | None",
    "parse": "def parse(text) -> answer",
}


def _named(*strategies: type[Any]) -> dict[str, Any]:
    return {snake_case(strategy.__name__): strategy for strategy in strategies}


def snake_case(name: str) -> str:
    """Return the name of a class in snake case, as in files: `"top_k"` for `TopK`."""
    name = name.replace("MoA", "Moa")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


STRATEGIES: dict[Place, dict[str, Any]] = {
    "select": _named(TopK, Diverse, Deduplicate, Shuffle, Tree, ClusterAndFilter, Residual),
    "until": _named(Agree, Similar, JudgedAgreement, Unchanged),
    "aggregator": _named(
        Rank, Vote, MostCentral, PeerReview, Analyse, SelfMoASeq, DropoutAndVote, DropoutAndCluster
    ),
    "route": _named(Route),
    "progressive": _named(Staircase, Chunkwise),
    "parse": {"text": normalize, "number": last_number},
}


@overload
def register_strategy(strategy: F, *, place: Place, name: str | None = None) -> F: ...
@overload
def register_strategy(
    strategy: None = None, *, place: Place, name: str | None = None
) -> Callable[[F], F]: ...
def register_strategy(strategy: Any = None, *, place: Place, name: str | None = None) -> Any:
    """Register a custom strategy under a name, so that files and assistants can use it.

    Call it in code that your server or command imports, or in a module that is an entry point of
    the group `moa_graph.strategies`. A file may set the keyword-only arguments of the function.

    Args:
        strategy: A function with the signature of its place, sync or async; or a subclass of a
            built-in strategy. If omitted, this function returns a decorator.
        place: Argument that the strategy is for.
        name: Name of the strategy; by default the function's name, or the class's in snake case.

    Returns:
        The strategy.

    Raises:
        TypeError: If the strategy does not accept the arguments of its place.
        ValueError: If the name is already used or not valid, or the place does not exist.

    Example:
        ```python
        @register_strategy(place="select")
        async def longest(references, run, *, count=1):
            return sorted(references, key=lambda p: -len(p["content"]))[:count]

        # in a file: select = [{ strategy = "longest", count = 2 }]
        ```
    """
    if place not in STRATEGIES or place == "progressive":
        places = [p for p in STRATEGIES if p != "progressive"]
        raise ValueError(
            f"register_strategy(place={place!r}) must be one of {', '.join(map(repr, places))}."
            f"{nearest(str(place), places)}"
        )
    if strategy is None:
        return lambda given: register_strategy(given, place=place, name=name)
    if not isinstance(strategy, type):
        check_function(strategy, place, "register_strategy(…)")
    found = str(getattr(strategy, "__name__", ""))
    own = name or (snake_case(found) if isinstance(strategy, type) else found)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", own):
        raise ValueError(
            f"register_strategy(name={own!r}) must be a name of letters, digits and underscores."
        )
    taken = STRATEGIES[place].get(own)
    if taken is not None and not _is_same(taken, strategy):
        raise ValueError(
            f"register_strategy(name={own!r}): the name is already registered for {place}."
        )
    STRATEGIES[place][own] = strategy
    return strategy


def _is_same(one: Any, other: Any) -> bool:
    """Return whether both are the same code, for example after a module is reloaded."""
    names = [(getattr(s, "__module__", s), getattr(s, "__qualname__", s)) for s in (one, other)]
    return names[0] == names[1]


def check_function(function: Any, place: Place, where: str) -> None:
    """Check that a function accepts the arguments of its place.

    Raises:
        TypeError: If it is not a function, or does not accept these arguments.
    """
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{where}: {short(function)} must be a function: {SIGNATURES[place]}.")
    try:
        inspect.signature(function).bind(*[None] * _POSITIONAL[place])
    except TypeError as error:
        raise TypeError(
            f"{where}: the function {getattr(function, '__name__', function)!r} must be called as "
            f"{SIGNATURES[place]} ({error})."
        ) from None
    except ValueError:  # a built-in without a signature
        return


def short(value: Any) -> str:
    """Return a short repr of a value for errors."""
    return represented_as("", {"": value})[2:-1]


def strategy_names(place: Place) -> list[str]:
    """Return the names of the strategies for a place, sorted."""
    _load_entry_points()
    return sorted(STRATEGIES[place])


@lru_cache(maxsize=1)
def _load_entry_points() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()


def named(place: Place, name: str, where: str) -> Any:
    """Return the strategy with a given name.

    Raises:
        ValueError: If the name is unknown. The message has the nearest name and all known names.
    """
    if name not in STRATEGIES[place]:
        _load_entry_points()
    if name in STRATEGIES[place]:
        return STRATEGIES[place][name]
    elsewhere = [p for p in STRATEGIES if name in STRATEGIES[p]]
    hint = nearest(name, STRATEGIES[place]) or (
        f" It is a strategy for {elsewhere[0]}." if elsewhere else ""
    )
    raise ValueError(
        f"{where}: unknown strategy {name!r}.{hint} Known strategies: "
        f"{', '.join(sorted(STRATEGIES[place]))}."
    )
