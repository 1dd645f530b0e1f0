"""How large a mixture may be on this server, and of which models."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from moa_graph.building.parts import as_answer
from moa_graph.models.local import LOCAL_MODELS
from moa_graph.presets.configuration import Configuration
from moa_graph.server.settings import SETTINGS
from moa_graph.strategies.aggregate import AnswerStrategy

_CHARACTERS_OF_A_TOKEN = 4  # about
_ALL = ("proposers", "aggregator", "route")


def check_bounds(configuration: Configuration, given: Collection[str] = _ALL) -> None:
    """Refuse a mixture that this server may not run.

    Args:
        configuration: The mixture.
        given: The fields whose models count.

    Raises:
        ValueError: If it has too many layers, proposers or samples, or a model that is not
            allowed; says which bound, and the setting that it comes from.
    """
    _check("layers", configuration.depth, SETTINGS.max_layers, "MOA_MAX_LAYERS")
    for field in given:
        value = getattr(configuration, field)
        for model, own in configuration.entries([field]):
            _check_model(model, own)
        for embeddings in _embeddings_in(value):
            _check_model(embeddings, {})
    widths = []
    for layer in configuration.described_layers():
        reserve = layer.get("reserve") or []
        samples = [_samples(entry) for entry in [*layer["proposers"], *reserve]]
        most = max(samples, default=0)
        _check("samples of a proposer", most, SETTINGS.max_samples, "MOA_MAX_SAMPLES")
        _check("proposers of a layer", sum(samples), SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")
        widths.append(sum(map(_samples, layer["proposers"])))
    if "aggregator" in given and configuration.writer is None:
        answer = as_answer(configuration.aggregator)
        own_members = answer.members(widths[-1]) if isinstance(answer, AnswerStrategy) else []
        most = len(own_members)
        _check("aggregations of subsets", most, SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")
    if isinstance(configuration.route, Mapping):
        drawn = _samples(configuration.route)
        _check("samples of the route", drawn, SETTINGS.max_samples, "MOA_MAX_SAMPLES")


def _samples(entry: Any) -> int:
    return int(entry.get("samples") or 1) if isinstance(entry, Mapping) else 1


def _embeddings_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "embeddings" and isinstance(inner, str):
                yield inner
            elif name != "schema":
                yield from _embeddings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _embeddings_in(inner)


def _check_model(model: str, given: Mapping[str, Any]) -> None:
    """Refuse a model that is not allowed, or whose answer may be longer than a run.

    Raises:
        ValueError: If it is.
    """
    if not SETTINGS.allows(model):
        raise ValueError(f"This server does not allow the model {model!r} (MOA_ALLOWED_MODELS).")
    tokens = given.get("max_tokens") or 0
    _check("tokens of an answer", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def check_names_no_file(configuration: Configuration) -> None:
    """Refuse local models that are none of ours: a client names no file of the server.

    Raises:
        ValueError: Names one, and those that there are.
    """
    for model, _ in configuration.entries():
        provider, _, name = model.partition(":")
        if provider.strip().lower() == "local" and name not in LOCAL_MODELS:
            there = ", ".join(LOCAL_MODELS)
            raise ValueError(
                f"The assistant's context: there is no local model {name!r}; there are {there}."
            )


def check_question(given: Any) -> None:
    """Refuse an input that has more tokens than a run may spend.

    Args:
        given: A run's input, or None.

    Raises:
        ValueError: If it has.
    """
    tokens = len(json.dumps(given, default=str)) // _CHARACTERS_OF_A_TOKEN if given else 0
    _check("tokens of input", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def _check(what: str, value: int, most: int, setting: str) -> None:
    if value > most:
        raise ValueError(f"{value} {what} are more than the {most} of this server ({setting}).")
