"""How large a mixture may be on this server, and of which models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from moa_graph.presets import Configuration, ModelEntry, ProposerEntry
from moa_graph.server.settings import SETTINGS

_CHARACTERS_OF_A_TOKEN = 4  # about
_Proposers: TypeAlias = Sequence[str | ProposerEntry] | Sequence[Sequence[str | ProposerEntry]]


def check_bounds(configuration: Configuration) -> None:
    """Refuse a mixture that this server may not run.

    Raises:
        ValueError: If it has too many layers, proposers or samples, or a model that is not
            allowed; says which bound, and the setting that it comes from.
    """
    check_proposers(configuration.proposers, configuration.layers)
    if configuration.writer is not None:
        check_model(configuration.writer)


def check_proposers(proposers: _Proposers, layers: int | None) -> None:
    """Refuse what `check_bounds` would refuse of the proposers alone.

    Args:
        proposers: One list for every layer, or a list a layer.
        layers: How many, the aggregator's included; None: as many as `proposers` says.

    Raises:
        ValueError: As there.
    """
    lists = [entry for entry in proposers if not isinstance(entry, str | ProposerEntry)]
    depth = layers or len(lists or [()]) + 1
    _check("layers", depth, SETTINGS.max_layers, "MOA_MAX_LAYERS")
    for layer in lists or [proposers]:  # type: ignore[list-item]
        samples = []
        for entry in layer:
            assert isinstance(entry, str | ProposerEntry)
            check_model(entry)
            samples.append(1 if isinstance(entry, str) else entry.samples)
        most = max(samples, default=0)
        _check("samples of a proposer", most, SETTINGS.max_samples, "MOA_MAX_SAMPLES")
        _check("proposers of a layer", sum(samples), SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")


def check_model(entry: str | ModelEntry) -> None:
    """Refuse a model that is not allowed, or whose answer may be longer than a run.

    Raises:
        ValueError: If it is.
    """
    model, tokens = (entry, None) if isinstance(entry, str) else (entry.model, entry.max_tokens)
    if not SETTINGS.allows(model):
        raise ValueError(f"This server does not allow the model {model!r} (MOA_ALLOWED_MODELS).")
    _check("tokens of an answer", tokens or 0, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


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
