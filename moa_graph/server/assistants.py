"""A Mixture-of-Agents that a client describes: an assistant of the graph `mixture`."""

from __future__ import annotations

import asyncio
import json
import os
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from pydantic import AfterValidator, Field, ValidationError

from moa_graph.context import MoAContext
from moa_graph.graph import MoAGraph
from moa_graph.local import LOCAL_MODELS
from moa_graph.presets import PRESETS, Configuration, ModelEntry, ProposerEntry
from moa_graph.validation import what_is_wrong

_KEPT = 256  # graphs, those used last
_TEMPERATURE = 0.7  # the reference code's
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


class AssistantContext(MoAContext):
    """What an assistant is: its models and layers, beside the settings of a run."""

    proposers: list[_Proposer] | list[list[_Proposer]] = Field(
        default=[_plain(entry) for entry in _DEFAULT.proposers],
        validate_default=True,
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
        le=10,
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


async def mixture(config: RunnableConfig) -> MoAGraph:
    """The graph of an assistant, drawn and run as its context says.

    Args:
        config: Has the assistant's context, with the run's over it, as `configurable`.

    Raises:
        ValueError: If that is no Mixture-of-Agents; says which field, and why.
    """
    given = config.get("configurable", {})
    fields = AssistantContext.model_fields
    try:
        context = AssistantContext(**{name: given[name] for name in fields if name in given})
    except ValidationError as error:
        raise ValueError(
            "The assistant's context: " + what_is_wrong(error, AssistantContext, _ENTRIES)
        ) from None
    shape = context.model_dump(include=_SHAPE, exclude_defaults=False)
    # Clients of providers read certificates from files, which blocks.
    return await asyncio.to_thread(_built, json.dumps(shape, sort_keys=True))


_SHAPE = {"proposers", "aggregator", "layers", "min_proposals"}
_ENTRIES: dict[str, type] = {"proposers": ProposerEntry, "aggregator": ModelEntry}


@lru_cache(maxsize=_KEPT)
def _built(shape: str) -> MoAGraph:
    configuration = Configuration(name="mixture", temperature=_TEMPERATURE, **json.loads(shape))
    return configuration.create(context_schema=AssistantContext)
