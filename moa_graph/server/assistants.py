"""A Mixture-of-Agents that a client describes: an assistant of the graph `mixture`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Self, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime
from pydantic import AfterValidator, Field, ValidationError, model_validator

from moa_graph.budget import Budget
from moa_graph.compiled import MoAGraph
from moa_graph.context import MoAContext
from moa_graph.local import LOCAL_MODELS
from moa_graph.presets import PRESETS, Configuration, ModelEntry, ProposerEntry
from moa_graph.server.bounds import check_bounds, check_model, check_proposers
from moa_graph.server.settings import SETTINGS
from moa_graph.validation import what_is_wrong

_KEPT = 256  # graphs, those used last
_TEMPERATURE = 0.7  # the reference code's
_MAX_TOKENS = min(8192, SETTINGS.max_tokens)  # as in the preset `together`
_DEFAULT = PRESETS["together" if os.environ.get("TOGETHER_API_KEY") else "local"]


def _not_a_file(model: str) -> str:
    """Refuse a local model that is none of ours: a client names no file of the server."""
    provider, _, name = model.partition(":")
    if provider.strip().lower() == "local" and name not in LOCAL_MODELS:
        raise ValueError(f"there is no local model {name!r}; there are {', '.join(LOCAL_MODELS)}")
    return model


def _model_not_a_file(entry: ModelEntry) -> ModelEntry:
    _not_a_file(entry.model)
    return entry


_Name: TypeAlias = Annotated[str, AfterValidator(_not_a_file)]
_Model: TypeAlias = _Name | Annotated[ModelEntry, AfterValidator(_model_not_a_file)]
_Proposer: TypeAlias = _Name | Annotated[ProposerEntry, AfterValidator(_model_not_a_file)]


def _plain(entry: Any) -> Any:
    return entry if isinstance(entry, str) else entry.model_dump(exclude_defaults=True)


class RunContext(MoAContext):
    """The settings of a run, within the bounds of this server."""

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for name in ("proposer_max_tokens", "aggregator_max_tokens", "token_budget"):
            if (getattr(self, name) or 0) > SETTINGS.max_tokens:
                raise ValueError(
                    f"{name} may be at most {SETTINGS.max_tokens} on this server (MOA_MAX_TOKENS)"
                )
        return self


class AssistantContext(RunContext):
    """What an assistant is: its models and layers, beside the settings of a run."""

    proposers: list[_Proposer] | list[list[_Proposer]] = Field(
        default=[_plain(entry) for entry in _DEFAULT.proposers],
        min_length=1,
        title="Proposers",
        description=(
            "The models that answer in parallel: “provider:model”, or an object with `model`, "
            "`name`, `prompt` (a role), `samples`, `temperature`, `max_tokens` and `timeout`. A "
            "list of lists gives each layer its own."
        ),
    )
    aggregator: _Model = Field(
        default=_plain(_DEFAULT.aggregator),
        title="Aggregator",
        description=(
            "The model that synthesizes the answer: “provider:model”, or an object with `model`, "
            "`temperature` and `max_tokens`."
        ),
        json_schema_extra={"langgraph_nodes": ["aggregator"]},
    )
    layers: int | None = Field(
        default=None,
        ge=2,
        le=SETTINGS.max_layers,
        title="Layers",
        description=(
            "How many layers, the aggregator's included: 2 is one layer of proposers and the "
            "aggregator, 3 is the paper's MoA. None: 2, or as many as `proposers` has lists."
        ),
    )
    min_proposals: int = Field(
        default=1,
        ge=1,
        title="Min proposals",
        description="How many usable proposals each layer must give for the run to go on.",
    )


_SHAPE = {"proposers", "aggregator", "layers", "min_proposals"}
_ENTRIES: dict[str, type] = {"proposers": ProposerEntry, "aggregator": ModelEntry}
_OPTIONS: dict[str, Any] = {"budget": Budget(tokens=SETTINGS.max_tokens)}


async def mixture(config: RunnableConfig, runtime: ServerRuntime[Any] | None = None) -> MoAGraph:
    """The graph of an assistant, drawn and run as its context says.

    Args:
        config: Has the assistant's context, with the run's over it, as `configurable`.
        runtime: What the server wants it for. What is only drawn may exceed bounds.

    Raises:
        ValueError: If that is no Mixture-of-Agents, or exceeds a bound of this server; says
            which field, and why.
    """
    given = config.get("configurable", {})
    known = {name: given[name] for name in AssistantContext.model_fields if name in given}
    shape = _context_of(known).model_dump(include=_SHAPE)
    if _runs(runtime):
        check_bounds(_configuration(shape))
    # Clients of providers read certificates from files, which blocks.
    return await asyncio.to_thread(_built, json.dumps(shape, sort_keys=True))


def preset(name: str, runtime: ServerRuntime[Any] | None = None) -> MoAGraph:
    """The graph of a preset.

    Args:
        name: The preset's.
        runtime: As for `mixture`.

    Raises:
        ValueError: If it exceeds a bound of this server.
    """
    if _runs(runtime):
        check_bounds(PRESETS[name])
    return _built_preset(name)


def _runs(runtime: ServerRuntime[Any] | None) -> bool:
    return runtime is None or runtime.execution_runtime is not None


@lru_cache(maxsize=_KEPT)
def _built(shape: str) -> MoAGraph:
    return _configuration(json.loads(shape)).create(context_schema=AssistantContext, **_OPTIONS)


@lru_cache
def _built_preset(name: str) -> MoAGraph:
    preset = PRESETS[name]
    longest = min(preset.max_tokens or SETTINGS.max_tokens, SETTINGS.max_tokens)
    preset = preset.model_copy(update={"max_tokens": longest})
    return preset.create(context_schema=RunContext, **_OPTIONS)


def check_given(given: Mapping[str, Any]) -> None:
    """Refuse what a run or an assistant may not be given, before it is started or stored.

    Args:
        given: A context, or a part of one.

    Raises:
        ValueError: If a field is unknown or wrong, or exceeds a bound; says which, and why.
    """
    context = _context_of(given)
    if "proposers" in given:
        check_proposers(context.proposers, context.layers)
    if "aggregator" in given:
        check_model(context.aggregator)


def _context_of(given: Mapping[str, Any]) -> AssistantContext:
    try:
        return AssistantContext(**given)
    except ValidationError as error:
        raise ValueError(
            "The assistant's context: " + what_is_wrong(error, AssistantContext, _ENTRIES)
        ) from None


def _configuration(shape: Mapping[str, Any]) -> Configuration:
    return Configuration(name="mixture", temperature=_TEMPERATURE, max_tokens=_MAX_TOKENS, **shape)
