"""What a mixture on this server can be made of: models, strategies, presets and bounds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from moa_graph.models.local import LOCAL_MODELS, is_installed
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration
from moa_graph.server.page_api.explicit import explicit
from moa_graph.server.settings import SETTINGS
from moa_graph.strategies.names import STRATEGIES, Place
from moa_graph.strategies.until import Then
from moa_graph.strategies.vote import TieRule

_PLACES: tuple[Place, ...] = ("aggregator", "select", "until", "route", "progressive")
_MODELS = ("judge", "model", "writer", "analyst")
_CHOICES = {
    "then": list(get_args(Then)),
    "tie": list(get_args(TieRule)),
    "parse": list(STRATEGIES["parse"]),
}
_NOT_OFFERED = ("embeddings", "schema", "weights")  # they are data, or more than one model
_KINDS = {"bool": "flag", "int": "integer", "float": "number"}


@lru_cache(maxsize=1)
def offer() -> dict[str, Any]:
    """Return what clients may choose from, as JSON.

    Returns:
        `models`: names as `"provider:model"` to suggest. `patterns`: patterns of allowed names; an
        empty list means that only `models` are allowed, and `["*"]` any model. `strategies`: by
        place, each with its arguments. `presets`: the data of each, in which every model has its
        settings. `bounds`: the maxima of layers, proposers of a layer, samples and tokens.
    """
    return {
        "models": [model for model in _suggested() if SETTINGS.allows(model)],
        "patterns": _patterns(),
        "strategies": {place: list(_strategies(place)) for place in _PLACES},
        "presets": {
            name: explicit(_within_bounds(preset))
            for name, preset in PRESETS.items()
            if all(map(SETTINGS.allows, preset.models()))
        },
        "bounds": {
            "layers": SETTINGS.max_layers,
            "proposers": SETTINGS.max_proposers,
            "samples": SETTINGS.max_samples,
            "tokens": SETTINGS.max_tokens,
        },
    }


def _within_bounds(preset: Configuration) -> Configuration:
    longest = min(preset.max_tokens or SETTINGS.max_tokens, SETTINGS.max_tokens)
    return preset.model_copy(update={"max_tokens": longest})


def _suggested() -> list[str]:
    local = [f"local:{name}" for name in LOCAL_MODELS] if is_installed() else []
    of_presets = [
        model
        for preset in PRESETS.values()
        for model in preset.models()
        if not model.startswith("local:")
    ]
    return list(dict.fromkeys([*SETTINGS.allowed_names, *local, *of_presets]))


def _patterns() -> list[str]:
    if SETTINGS.allowed_models:
        return SETTINGS.allowed_patterns
    return [] if SETTINGS.keys else ["*"]


def _strategies(place: Place) -> Iterator[dict[str, Any]]:
    for name, strategy in STRATEGIES[place].items():
        summary = (inspect.getdoc(strategy) or "").partition("\n")[0]
        yield {"name": name, "summary": summary, "arguments": list(_arguments(strategy))}


def _arguments(strategy: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(strategy, type):
        return  # a function of the operator
    for name, parameter in inspect.signature(strategy).parameters.items():
        if name in _NOT_OFFERED or parameter.kind is parameter.VAR_KEYWORD:
            continue
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        argument = {"name": name, "required": required, "default": default}
        if name in _MODELS:
            yield {**argument, "kind": "model"}
        elif name in _CHOICES:
            yield {**argument, "kind": "choice", "choices": _CHOICES[name]}
        else:
            yield {**argument, "kind": _kind_of(str(parameter.annotation), default)}


def _kind_of(annotation: str, default: Any) -> str:
    if default is not None:
        return _KINDS.get(type(default).__name__, "text")
    return next((kind for name, kind in _KINDS.items() if name in annotation), "integer")
