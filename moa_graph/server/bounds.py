"""How large a mixture may be on this server, and of which models."""

from __future__ import annotations

from moa_graph.presets import Configuration, FileModelEntry, FileProposerEntry
from moa_graph.server.settings import SETTINGS


def check_bounds(configuration: Configuration) -> None:
    """Refuse a mixture that this server may not run.

    Raises:
        ValueError: If it has too many layers, proposers or samples, or a model that is not
            allowed; says which bound, and the setting that it comes from.
    """
    for model in configuration.models():
        if not SETTINGS.allows(model):
            raise ValueError(
                f"This server does not allow the model {model!r} (MOA_ALLOWED_MODELS)."
            )
    _check_tokens(configuration.aggregator)
    layers = _layers(configuration)
    depth = configuration.layers or len(layers) + 1
    _check("layers", depth, SETTINGS.max_layers, "MOA_MAX_LAYERS")
    for layer in layers:
        for entry in layer:
            _check_tokens(entry)
        samples = [1 if isinstance(entry, str) else entry.samples for entry in layer]
        _check("samples of a proposer", max(samples), SETTINGS.max_samples, "MOA_MAX_SAMPLES")
        _check("proposers of a layer", sum(samples), SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")


def _check_tokens(entry: str | FileModelEntry) -> None:
    tokens = 0 if isinstance(entry, str) else entry.max_tokens or 0
    _check("tokens of an answer", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def _layers(configuration: Configuration) -> list[list[str | FileProposerEntry]]:
    """The proposers of each layer that differs from the one before."""
    layers = [entry for entry in configuration.proposers if isinstance(entry, list)]
    return layers or [configuration.proposers]  # type: ignore[list-item]


def _check(what: str, value: int, most: int, setting: str) -> None:
    if value > most:
        raise ValueError(f"{value} {what} are more than the {most} of this server ({setting}).")
