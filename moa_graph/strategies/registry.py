"""Convert strategies from data, as in files and assistants, and back to data.

A name refers to a built-in strategy or to one that the operator's code has registered. It is
never an import path.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from moa_graph.errors import check_names
from moa_graph.models import Model
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.base import Strategy
from moa_graph.strategies.functions import (
    FunctionAnswer,
    FunctionRoute,
    FunctionSelection,
    FunctionUntil,
)
from moa_graph.strategies.names import (
    SIGNATURES,
    STRATEGIES,
    Place,
    check_function,
    named,
    short,
    snake_case,
)
from moa_graph.strategies.route import Route
from moa_graph.strategies.select import (
    Selection,
)
from moa_graph.strategies.until import Until

F = TypeVar("F", bound=Callable[..., Any])


_MODELS = ("model", "writer", "judge", "analyst")
"""Names of the arguments of strategies that are models."""


_KINDS: dict[str, type[Any] | tuple[type[Any], ...]] = {
    "select": Selection,
    "until": Until,
    "aggregator": AnswerStrategy,
    "route": Route,
    "progressive": (Staircase, Chunkwise),
}
_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "select": FunctionSelection,
    "until": FunctionUntil,
    "aggregator": FunctionAnswer,
    "route": FunctionRoute,
}
_EXAMPLES = {
    "select": "TopK(3)",
    "until": "Agree()",
    "aggregator": "Rank(judge)",
    "route": "Route(model, samples=3)",
    "progressive": "Staircase()",
}


def as_strategy(place: Place, value: Any, where: str) -> Any:
    """Return the strategy for a value that a user passed.

    Args:
        place: Argument that the strategy is for.
        value: A strategy, a function, a name, or a mapping with a name and arguments. For None,
            None is returned.
        where: Name of the argument in errors.

    Raises:
        TypeError: If the value is not a strategy for that place.
        ValueError: If the name is unknown, or an argument is out of range.
    """
    if value is None or isinstance(value, _KINDS[place]):
        return value
    if isinstance(value, str):
        return _built(place, {"strategy": value}, where)
    if isinstance(value, Mapping):
        return _built(place, value, where)
    for other, kind in _KINDS.items():
        if isinstance(value, kind):
            raise TypeError(f"{where} is a {type(value).__name__}, which is for {other}.")
    if place in _WRAPPERS and callable(value) and not isinstance(value, type):
        check_function(value, place, where)
        return _WRAPPERS[place](value)
    example = f"such as {_EXAMPLES[place]}"
    function = f", or a function: {SIGNATURES[place]}" if place in _WRAPPERS else ""
    shown = where.replace("…", short(value))
    raise TypeError(f"{shown} must be a strategy for {place}, {example}{function}.")


def as_selections(value: Sequence[Any], where: str) -> list[Selection]:
    """Return the selections of a layer, in order."""
    return [as_strategy("select", one, where) for one in value]


def _built(place: Place, data: Mapping[str, Any], where: str) -> Any:
    default = "route" if place == "route" else "staircase" if place == "progressive" else None
    name = data.get("strategy", default)
    if not isinstance(name, str):
        raise ValueError(
            f"{where} needs the field strategy: {{ strategy = {snake_case(_EXAMPLES[place])!r} }}."
        )
    strategy = named(place, name, where)
    arguments = {key: value for key, value in data.items() if key != "strategy"}
    check_names(strategy, arguments, f"{where}: {name}")
    if isinstance(strategy, type):
        _check_needed(strategy, arguments, f"{where}: {name}")
        given = {k: _argument(k, v, f"{where}: {name}({k}=…)") for k, v in arguments.items()}
        return strategy(**given)
    return _WRAPPERS[place](partial(strategy, **arguments) if arguments else strategy)


def _check_needed(strategy: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    for name, parameter in inspect.signature(strategy).parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and name not in given:
            raise ValueError(f"{where} needs {name}.")


def _argument(name: str, value: Any, where: str) -> Any:
    """Convert an argument of a strategy from data."""
    if value is None:
        return None
    if name in _MODELS or (name == "tie" and _is_judge(value)):
        return model_of(value, where)
    if name == "parse" and isinstance(value, str):
        return named("parse", value, where)
    return value


def model_of(value: Any, where: str) -> Any:
    """Convert a model from data: a string, or a mapping with `model` and settings.

    Args:
        value: The model.
        where: Its place in errors.

    Raises:
        TypeError: If a field of the mapping is unknown.
        ValueError: If it has no `model`, or the model is not valid.
    """
    if not isinstance(value, Mapping):
        return value
    check_names(_described, value, where)
    _check_needed(_described, value, where)
    model, settings = _described(**value)
    return Model(model, where, **settings)


def _described(
    model: str,
    temperature: float | None = None,
    max_tokens: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, Any]]:
    own = {"temperature": temperature, "max_tokens": max_tokens}
    return model, {**{k: v for k, v in own.items() if v is not None}, **(params or {})}


# --- back to data --------------------------------------------------------------------------


def plain(place: Place, strategy: Any, where: str) -> Any:
    """Convert a strategy to data for a file.

    Raises:
        ValueError: If a part of it has no name, such as a function that is not registered.
    """
    if strategy is None or isinstance(strategy, str | Mapping):
        return strategy
    function = getattr(strategy, "function", None)
    if function is not None:
        arguments = dict(function.keywords) if isinstance(function, partial) else {}
        inner = function.func if isinstance(function, partial) else function
        return _shortest({"strategy": _name_of(place, inner, where), **arguments})
    name = _name_of(place, type(strategy), where)
    given = strategy.given if isinstance(strategy, Strategy) else _fields_of(strategy)
    arguments = {key: _plain_argument(key, value, where) for key, value in given.items()}
    return _shortest({"strategy": name, **{k: v for k, v in arguments.items() if v is not None}})


def _fields_of(strategy: Any) -> dict[str, Any]:
    fields = type(strategy).__dataclass_fields__
    return {name: getattr(strategy, name) for name in fields}


def _shortest(data: dict[str, Any]) -> Any:
    return data["strategy"] if len(data) == 1 else data


def _name_of(place: Place, strategy: Any, where: str) -> str:
    for name, known in STRATEGIES[place].items():
        if known is strategy:
            return name
    raise ValueError(
        f"{where} cannot be written to a file: {getattr(strategy, '__name__', strategy)!r} has no "
        f"name. Give it one: register_strategy(…, place={place!r})."
    )


def _plain_argument(name: str, value: Any, where: str) -> Any:
    if name in _MODELS or isinstance(value, Model):
        return plain_model(value, where)
    if name == "parse" and value is not None:
        return _name_of("parse", value, where)
    if name == "embeddings" and value is not None and not isinstance(value, str):
        raise ValueError(
            f"{where} cannot be written to a file: embeddings is a {type(value).__name__}. Give it "
            "as 'provider:model'."
        )
    if isinstance(value, type):
        raise ValueError(
            f"{where} cannot be written to a file: {name} is the class {value.__name__}. Give it "
            "as a JSON schema."
        )
    return value


def plain_model(value: Any, where: str) -> Any:
    """Convert a model to data for a file.

    Raises:
        ValueError: If the model was given as an object.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Model) and (data := value.data) is not None:
        return data
    raise ValueError(
        f"{where} cannot be written to a file: it is a {type(value).__name__}. Give it as "
        "'provider:model'."
    )


def model_arguments(value: Any) -> dict[str, Any]:
    """Return the arguments that are models, from a strategy as data."""
    if not isinstance(value, Mapping):
        return {}
    return {
        name: argument
        for name, argument in value.items()
        if argument is not None and (name in _MODELS or (name == "tie" and _is_judge(argument)))
    }


def _is_judge(tie: Any) -> bool:
    return isinstance(tie, Mapping) or ":" in str(tie)
