"""The data of a configuration in which every model has its own settings."""

from __future__ import annotations

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
