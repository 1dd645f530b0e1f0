"""Default settings of a configuration, for models without their own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moa_graph.building.members import is_layer
from moa_graph.strategies.registry import (
    model_arguments,
    model_of,
)

OF_LAYERS = ("select", "until")  # strategies of a layer


def with_defaults(value: Any, defaults: Mapping[str, Any]) -> Any:
    """Add default settings to the models of proposers."""
    if isinstance(value, list):
        return [with_defaults(entry, defaults) for entry in value]
    if not is_layer(value):
        return _model_with_defaults(value, defaults)
    layer = {**value, "proposers": with_defaults(value["proposers"], defaults)}
    if "reserve" in layer:
        layer["reserve"] = with_defaults(layer["reserve"], defaults)
    for field in OF_LAYERS:
        several = layer.get(field)
        if isinstance(several, list):
            layer[field] = [strategy_with_defaults(one, defaults) for one in several]
        elif several is not None:
            layer[field] = strategy_with_defaults(several, defaults)
    return layer


def answer_with_defaults(value: Any, defaults: Mapping[str, Any]) -> Any:
    """Add default settings to the models of an aggregator."""
    if is_strategy(value):
        return strategy_with_defaults(value, defaults)
    return model_of(_model_with_defaults(value, defaults), "aggregator")


def _model_with_defaults(value: Any, defaults: Mapping[str, Any]) -> Any:
    entry = {"model": value} if isinstance(value, str) else value
    merged = {**defaults, **entry}
    return merged if len(merged) > 1 else merged["model"]


def strategy_with_defaults(value: Any, defaults: Mapping[str, Any]) -> Any:
    """Add default settings to the models of a strategy."""
    models = model_arguments(value)
    if not models:
        return value
    with_own = {name: _model_with_defaults(model, defaults) for name, model in models.items()}
    return {**value, **with_own}


def is_strategy(value: Any) -> bool:
    """Return whether the data of an aggregator describe a strategy instead of a model."""
    if isinstance(value, Mapping):
        return "strategy" in value
    return isinstance(value, str) and ":" not in value
