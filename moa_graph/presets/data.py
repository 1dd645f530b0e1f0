"""Convert the arguments of `create_moa` to plain data, as a configuration file has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moa_graph.building.members import is_layer
from moa_graph.errors import arguments_of
from moa_graph.layers import Layer, Proposer
from moa_graph.models import Model
from moa_graph.presets.defaults import is_strategy
from moa_graph.strategies.registry import as_selections, as_strategy, plain, plain_model

_NOT_OURS = ("params", "schema")  # mappings in which None differs from a field that is not given


def plain_data(value: Any, *, nulls: bool = False) -> Any:
    """Convert data to JSON types, so that it can be compared and written to files."""
    if isinstance(value, Mapping):
        return {
            str(key): plain_data(inner, nulls=nulls or key in _NOT_OURS)
            for key, inner in value.items()
            if nulls or inner is not None
        }
    if isinstance(value, list | tuple):
        return [plain_data(inner, nulls=nulls) for inner in value]
    return value


def values_of(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Return each value that is not a mapping or a list, with its place in the data."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from values_of(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from values_of(inner, f"{place}[{number}]")
    else:
        yield place, value


def plain_proposers(value: Any) -> Any:
    """Convert the proposers of `create_moa` to data: models, a layer, or a list of layers.

    Raises:
        ValueError: If a part was given as an object that has no name.
    """
    if isinstance(value, Layer | Mapping):
        return _plain_layer(value)
    return [
        _plain_layer(entry)
        if isinstance(entry, Layer)
        else [_plain_proposer(e) for e in entry]
        if isinstance(entry, list | tuple)
        else _plain_proposer(entry)
        for entry in value
    ]


def _plain_layer(value: Layer | Mapping[str, Any]) -> dict[str, Any]:
    layer = value if isinstance(value, Layer) else Layer(**value)
    data = arguments_of(layer)
    data["proposers"] = [_plain_proposer(proposer) for proposer in layer.proposers]
    if layer.reserve:
        data["reserve"] = [_plain_proposer(proposer) for proposer in layer.reserve]
    if layer.select:
        chosen = as_selections(layer.select, "select")
        data["select"] = [plain("select", one, "select") for one in chosen]
    if layer.until is not None:
        data["until"] = plain("until", as_strategy("until", layer.until, "until"), "until")
    if layer.references is not None:
        data["references"] = arguments_of(layer.references)
    return data


def _plain_proposer(value: Any) -> Any:
    if isinstance(value, Mapping) and not is_layer(value):
        value = Proposer(**value)
    if isinstance(value, Mapping):
        return _plain_layer(value)
    if not isinstance(value, Proposer):
        return plain_model(value, "proposers")
    data = arguments_of(value)
    model = plain_model(value.model, "proposers")
    data = {**data, **model} if isinstance(model, dict) else {**data, "model": model}
    return data if len(data) > 1 else model


def plain_answer(value: Any) -> Any:
    """Convert the aggregator of `create_moa` to data.

    Raises:
        ValueError: If it was given as an object that has no name.
    """
    from_data = isinstance(value, str | Mapping)
    if from_data and is_strategy(value):
        return value
    if isinstance(value, Model) or from_data:
        return plain_model(value, "aggregator")
    if callable(value) or hasattr(value, "given"):
        return plain("aggregator", as_strategy("aggregator", value, "aggregator"), "aggregator")
    return plain_model(value, "aggregator")
