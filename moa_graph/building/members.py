"""The proposers of each layer, each with a unique name and a position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moa_graph.errors import check_names
from moa_graph.layers import RESERVED, Layer, Proposer, sample_names
from moa_graph.nodes.plan import Member

_FEWEST_LAYERS = 2  # one layer of proposers, and the aggregator


def layers_of(proposers: Any, layers: int | None) -> list[Layer]:
    """Return the layers of proposers of a mixture.

    Args:
        proposers: Models, one `Layer` for every layer, or a list of `Layer`s and lists of models.
        layers: Number of layers, including the aggregator's.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `proposers` is empty or contradicts `layers`.
    """
    if isinstance(layers, bool) or not isinstance(layers, int | None):
        raise TypeError(
            f"create_moa(layers={layers!r}) must be an integer: 2 is one layer of proposers and "
            "the aggregator, 3 is the paper's MoA."
        )
    if layers is not None and layers < _FEWEST_LAYERS:
        raise ValueError(
            f"create_moa(layers={layers}) must be at least 2: it counts the aggregator's layer, so "
            "2 is one layer of proposers and the aggregator."
        )
    if isinstance(proposers, Layer) or (isinstance(proposers, Mapping) and is_layer(proposers)):
        return [as_layer(proposers)] * ((layers or _FEWEST_LAYERS) - 1)
    if isinstance(proposers, str | Mapping) or not isinstance(proposers, Sequence):
        raise TypeError(
            "create_moa(proposers=…) must be a list of models, a Layer, or a list of Layers, not "
            f"{type(proposers).__name__}. For one model write proposers=[model]."
        )
    if not proposers:
        raise ValueError("create_moa(proposers=[]) is empty: give at least one model.")
    nested = [is_layer(entry) for entry in proposers]
    if any(nested) and not all(nested):
        raise TypeError(
            "create_moa(proposers=…) mixes models and layers: give either models, or one Layer "
            "(or list of models) for each layer."
        )
    if not any(nested):
        return [as_layer(proposers)] * ((layers or _FEWEST_LAYERS) - 1)
    if layers is not None and layers != len(proposers) + 1:
        raise ValueError(
            f"create_moa(layers={layers}) contradicts proposers, which has {len(proposers)} "
            f"layers: with the aggregator that makes {len(proposers) + 1}. Leave layers out, or "
            f"give {layers - 1} of them."
        )
    return [_layer_at(i, entry) for i, entry in enumerate(proposers)]


def _layer_at(place: int, entry: Any) -> Layer:
    try:
        return as_layer(entry)
    except (TypeError, ValueError) as error:
        raise type(error)(f"proposers[{place}]: {error}") from None


def as_layer(value: Any) -> Layer:
    """Return a layer made from a list of models or from a mapping of arguments.

    Raises:
        TypeError: If an argument has the wrong type or does not exist.
        ValueError: If a value is out of range.
    """
    if isinstance(value, Layer):
        return value
    if isinstance(value, Mapping):
        check_names(Layer, value)
        return Layer(**value)
    return Layer(value)


def is_layer(entry: object) -> bool:
    """Return whether this is a layer, or data for a layer, and not a model."""
    if isinstance(entry, Mapping):
        return "proposers" in entry
    return isinstance(entry, Layer) or (isinstance(entry, Sequence) and not isinstance(entry, str))


def is_list_of_layers(proposers: Sequence[Any]) -> bool:
    """Return whether these are layers, and not models of a single layer."""
    return any(map(is_layer, proposers))


def members_of(layer: Layer, where: str) -> list[Member]:
    """Return the proposers of a layer in order; `where` locates them in error messages."""
    return list(_seats(layer.proposers, where))


def reserve_of(layer: Layer, where: str) -> list[Member]:
    """Return the reserve of a layer in order; `where` locates them in error messages."""
    return list(_seats(layer.reserve, f"{where}.reserve"))


def _seats(entries: Sequence[Proposer], where: str) -> Iterator[Member]:
    models = [entry.as_model(f"{where}[{i}]") for i, entry in enumerate(entries)]
    taken = Counter(
        name for entry in entries if entry.name for name in sample_names(entry.name, entry.samples)
    )
    drawn: Counter[tuple[str, str | None]] = Counter()
    for entry, model in zip(entries, models, strict=True):
        base = entry.name or _unused(_short(model.name), taken, entry.samples)
        for name in sample_names(base, entry.samples):
            sample = drawn[model.name, entry.prompt]
            drawn[model.name, entry.prompt] += 1
            yield Member(
                name, model, entry.prompt, sample, entry.timeout, cache_key=entry.cache_key
            )


def _unused(name: str, taken: Counter[str], samples: int) -> str:
    """Return a free name and mark it as taken; append a number if the name is not free."""
    candidate, number = name, 1
    while any(n in taken for n in sample_names(candidate, samples)):
        number += 1
        candidate = f"{name}_{number}"
    taken.update(sample_names(candidate, samples))
    return candidate


def _short(model_name: str) -> str:
    short = model_name.rstrip("/").rpartition("/")[2] or "model"
    for character in RESERVED:
        short = short.replace(character, "-")
    return short
