"""Settings of models: in each model of a configuration, or once where all models share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moa_graph.presets.configuration import Configuration
from moa_graph.presets.defaults import is_strategy, strategy_with_defaults, with_defaults


def explicit(configuration: Configuration) -> dict[str, Any]:
    """Return the data of a configuration, with the default settings in each of its models.

    Args:
        configuration: The mixture.
    """
    data, defaults = configuration.data(), configuration.defaults
    data["proposers"] = with_defaults(data["proposers"], defaults)
    if is_strategy(data["aggregator"]):
        data["aggregator"] = strategy_with_defaults(data["aggregator"], defaults)
    else:
        (data["aggregator"],) = with_defaults([data["aggregator"]], defaults)
    if "route" in data:
        data["route"] = strategy_with_defaults(data["route"], defaults)
    return data


def concise(configuration: Configuration) -> Configuration:
    """Return the same mixture, with the settings that all of its models share as defaults.

    Args:
        configuration: The mixture.
    """
    parts = {name: getattr(configuration, name) for name in ("proposers", "aggregator", "route")}
    shared: dict[str, Any] = {}
    for name in ("temperature", "max_tokens"):
        own = [settings.get(name) for _, settings in configuration.entries()]
        own += [model.get(name) for model in _models_in(parts)]
        if own and own[0] is not None and own.count(own[0]) == len(own):
            shared[name] = own[0]
    if not shared:
        return configuration
    return configuration.model_copy(update={**_without(parts, shared), **shared})


def _models_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return the models that are given with their settings, at any depth."""
    if isinstance(value, Mapping):
        if _is_model(value):
            yield value
        for inner in value.values():
            yield from _models_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _models_in(inner)


def _is_model(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("model"), str)


def _without(value: Any, shared: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_without(inner, shared) for inner in value]
    if not isinstance(value, Mapping):
        return value
    kept = {name: _without(inner, shared) for name, inner in value.items()}
    if not _is_model(value):
        return kept
    kept = {name: inner for name, inner in kept.items() if name not in shared}
    return kept["model"] if kept.keys() == {"model"} else kept
