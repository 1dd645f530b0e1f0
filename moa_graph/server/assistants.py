"""Assistants of the graph `mixture`: a Mixture-of-Agents that a client describes."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from moa_graph.building.compiled import MoAGraph
from moa_graph.building.for_agents import once_a_turn
from moa_graph.context import MoAContext
from moa_graph.errors import what_is_wrong
from moa_graph.events import ProposalStream
from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import RunLimits
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration, Data
from moa_graph.progressive.pieces import Staircase
from moa_graph.server.checks.bounds import check_bounds, check_names_no_file, check_state
from moa_graph.server.metrics import RunMetrics
from moa_graph.server.settings import SETTINGS
from moa_graph.server.storage import cache_at
from moa_graph.state import MoAState

_PYTHON = re.compile(r"\b[A-Za-z_]+\((\w+)=([^()]*)\)")  # such as Layer(quorum=7)
_KEPT = 256  # most recently used graphs
_TEMPERATURE = 0.7  # as in the paper's reference code
_MAX_TOKENS = min(8192, SETTINGS.max_tokens)  # as in the preset `together`
_DEFAULT = PRESETS["together" if os.environ.get("TOGETHER_API_KEY") else "local"]


class _Described:
    """Give a field of plain data the JSON schema of another type, for Studio."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Return the core schema of the field, unchanged."""
        return handler(source)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Return the JSON schema of the other type."""
        del schema
        return handler(TypeAdapter(self._kind).core_schema)


_OneLayer = list[str | Proposer]
_Proposers = _OneLayer | Layer | list[_OneLayer | Layer]


class RunContext(MoAContext):
    """Settings of a run, within the bounds of this server."""

    consult: Literal["turn", "always"] | None = Field(
        default=None,
        title="Consult",
        description=(
            "When the proposers are asked in a run with tools: “turn”, once for each human "
            "message, so that later runs with tool results reuse the proposals; or “always”. "
            "None: “turn”."
        ),
    )

    @property
    def once_a_turn(self) -> bool:
        """Whether the proposers are asked once for each human message in a run with tools."""
        return self.consult != "always"

    def check_state(self, state: MoAState) -> None:
        """Check the size of the state: a client can collect it in a thread, part by part."""
        check_state(state)

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for name in ("proposer_max_tokens", "aggregator_max_tokens", "token_budget"):
            if (getattr(self, name) or 0) > SETTINGS.max_tokens:
                raise ValueError(
                    f"{name} may be at most {SETTINGS.max_tokens} on this server (MOA_MAX_TOKENS)"
                )
        return self


class AssistantContext(RunContext):
    """Models and layers of an assistant, and the settings of its runs."""

    proposers: Annotated[Data, _Described(_Proposers)] = Field(
        default=_DEFAULT.proposers,
        title="Proposers",
        description=(
            "The models that answer in parallel: “provider:model”, or an object with `model`, "
            "`name`, `prompt` (a role), `samples`, `temperature`, `max_tokens` and `timeout`. One "
            "layer, or a list of layers, has `proposers` and its own `quorum`, `timeout`, "
            "`select`, `until` …"
        ),
    )
    aggregator: Annotated[Data, _Described(str | dict[str, Any])] = Field(
        default=_DEFAULT.aggregator,
        title="Aggregator",
        description=(
            "The model that synthesizes the answer: “provider:model”, or an object with `model`, "
            "`temperature` and `max_tokens`. Or a strategy, such as “vote” or an object with "
            "`strategy` and its arguments."
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
            "aggregator, 3 is the paper's MoA. None: 2, or as many as `proposers` has."
        ),
    )
    references: Annotated[Data, _Described(References | None)] = Field(
        default=None,
        title="References",
        description="How readers are shown the proposals: `prompt`, `place`, `fenced`, `window` …",
        json_schema_extra={"langgraph_nodes": ["aggregator"]},
    )
    route: Annotated[Data, _Described(dict[str, Any] | str | None)] = Field(
        default=None,
        title="Route",
        description=(
            "Who answers before the panel: an object with `model`, and `judge` or `samples`."
        ),
        json_schema_extra={"langgraph_nodes": ["first_pass"]},
    )
    progressive: Annotated[Data, _Described(Staircase | str | None)] = Field(
        default=None,
        title="Progressive",
        description="“staircase”: layers begin on the first chunks of the layer before.",
    )
    limits: Annotated[Data, _Described(RunLimits | None)] = Field(
        default=None,
        title="Limits",
        description="The most that a run may take: `timeout` in seconds, `tokens`, `usd`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _not_for_clients(cls, given: Any) -> Any:
        for name, why in _REFUSED.items():
            if isinstance(given, Mapping) and name in given:
                raise ValueError(f"{name} cannot be set for an assistant: {why}")
        return given


_SHAPE = ("proposers", "aggregator", "layers", "references", "route", "progressive", "limits")
_REFUSED = {
    "store": "the server provides its own store",
    "interrupt_before": "it is an option of a run on the server",
    "interrupt_after": "it is an option of a run on the server",
    "name": "set the name of the assistant instead",
    "context_schema": "the server defines it",
    **dict.fromkeys(("select", "until", "hedge", "reserve"), "it is a field of a layer"),
    "calls": "the server sets the call policy for all runs",
    "cache": "the server sets where proposals are cached",
    "checkpointer": "the server sets where threads are stored",
    "min_proposals": "it is a field of a layer: proposers = { proposers = […], min_proposals = 2 }",
}
_ENTRIES: dict[str, type] = {}


async def mixture(config: RunnableConfig, runtime: ServerRuntime[Any] | None = None) -> MoAGraph:
    """Return the graph that the context of an assistant describes.

    Args:
        config: Configuration whose `configurable` has the assistant's context.
        runtime: Purpose of the graph, and the assistant's context overridden by that of the run.
            Bounds are not checked for a graph that is only drawn.

    Raises:
        ValueError: If the context is not a valid Mixture-of-Agents, or exceeds a bound of this
            server. The message names the field and the reason.
    """
    shape = _shape(_context_of(_settings(config, runtime)))
    configuration = _configuration(shape)
    if _runs(runtime):
        check_bounds(configuration)
    # Provider clients read certificate files, which blocks.
    graph = await asyncio.to_thread(_built, json.dumps(shape, sort_keys=True))
    return for_run(graph, config, runtime)


def preset(
    name: str, config: RunnableConfig | None = None, runtime: ServerRuntime[Any] | None = None
) -> MoAGraph:
    """Return the graph of a preset.

    Args:
        name: Name of the preset.
        config: As for `mixture`.
        runtime: As for `mixture`.

    Raises:
        ValueError: If the preset exceeds a bound of this server, or the run asks for other models
            or layers than the preset has.
    """
    if _runs(runtime):
        check_preset(name, _settings(config or {}, runtime))
        check_bounds(PRESETS[name])
    return _built_preset(name)


def check_preset(name: str, given: Mapping[str, Any]) -> None:
    """Check the context of a run of a preset, or of an assistant of one.

    Args:
        name: Name of the preset.
        given: The context, or a part of one.

    Raises:
        ValueError: If the context describes another mixture. The message names the fields.
    """
    own = AssistantContext.model_fields.keys() - RunContext.model_fields.keys()
    if fields := sorted(field for field in own if given.get(field) is not None):
        raise ValueError(
            f"{name} is a preset, which has its own {' and '.join(fields)}. Ask the graph "
            f"'mixture' for another mixture."
        )


def for_run(
    graph: MoAGraph, config: RunnableConfig, runtime: ServerRuntime[Any] | None
) -> MoAGraph:
    """Return the graph to execute: for the call of an agent, one that can reuse proposals.

    Args:
        graph: The graph, which is also the one to draw.
        config: As for `mixture`.
        runtime: As for `mixture`.
    """
    given = _settings(config, runtime)
    options = given.get("aggregator_options")
    tools = options.get("tools") if isinstance(options, Mapping) else None
    acts = tools or given.get("consult") == "turn"
    return once_a_turn(graph) if acts and _runs(runtime) else graph


def _settings(config: RunnableConfig, runtime: ServerRuntime[Any] | None) -> dict[str, Any]:
    """Return the context of a run: that of the assistant, overridden by that of the request.

    On Aegra, `configurable` has the context of one of the two.
    """
    given = dict(config.get("configurable") or {})
    execution = runtime.execution_runtime if runtime is not None else None
    if execution is not None and isinstance(execution.context, Mapping):
        given |= execution.context
    return {name: given[name] for name in AssistantContext.model_fields if name in given}


def _runs(runtime: ServerRuntime[Any] | None) -> bool:
    return runtime is None or runtime.execution_runtime is not None


@lru_cache(maxsize=_KEPT)
def _built(shape: str) -> MoAGraph:
    given = json.loads(shape)
    limits = {**(given.pop("limits", None) or {})}
    limits["tokens"] = min(limits.get("tokens") or SETTINGS.max_tokens, SETTINGS.max_tokens)
    configuration = _configuration({**given, "limits": limits})
    return _served(
        configuration.create(context_schema=AssistantContext, cache=cache_at(SETTINGS.cache))
    )


@lru_cache
def _built_preset(name: str) -> MoAGraph:
    preset = PRESETS[name]
    longest = min(preset.max_tokens or SETTINGS.max_tokens, SETTINGS.max_tokens)
    preset = preset.model_copy(update={"max_tokens": longest})
    graph = preset.create(
        context_schema=RunContext,
        limits=RunLimits(tokens=SETTINGS.max_tokens),
        cache=cache_at(SETTINGS.cache),
    )
    return _served(graph)


def _served(graph: MoAGraph) -> MoAGraph:
    """Return the graph with what clients cannot add: proposals in event streams, and metrics."""
    served = graph.builder.compile(name=graph.name, transformers=(ProposalStream,))
    return served.with_config(callbacks=[RunMetrics(graph.name)])


def check_given(given: Mapping[str, Any], *, whole: bool = False) -> None:
    """Check the context of a run or an assistant, before it is started or stored.

    Args:
        given: Context, or a part of one.
        whole: Whether it is the context of an assistant, so that defaults are checked, too.

    Raises:
        ValueError: If a field is unknown or invalid, or exceeds a bound. The message names the
            field and the reason.
    """
    configuration = configuration_of(given)
    fields = ("proposers", "aggregator", "route")
    check_bounds(configuration, [field for field in fields if whole or field in given])


def configuration_of(given: Mapping[str, Any]) -> Configuration:
    """Return the mixture that the context of an assistant describes.

    Args:
        given: Context, or a part of one.

    Raises:
        ValueError: If a field is unknown or invalid. The message names the field and the reason.
    """
    return _configuration(_shape(_context_of(given)))


def described_by(given: Mapping[str, Any], name: str) -> Configuration:
    """Return the mixture that the context of an assistant describes, with its default settings.

    Args:
        given: The context.
        name: Name of the mixture.

    Raises:
        ValueError: If the context is not a valid Mixture-of-Agents, or exceeds a bound of this
            server. The message names the field and the reason.
    """
    configuration = configuration_of(given)
    check_bounds(configuration)
    mixture = configuration.model_copy(update={"name": name})
    mixture.create()
    return mixture


def _shape(context: AssistantContext) -> dict[str, Any]:
    given = {name: getattr(context, name) for name in _SHAPE}
    return {name: value for name, value in given.items() if value is not None}


def _context_of(given: Mapping[str, Any]) -> AssistantContext:
    try:
        return AssistantContext(**given)
    except ValidationError as error:
        raise ValueError(_told(error, AssistantContext)) from None


def _told(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return what is wrong with a context, with the fields of JSON in place of Python's calls."""
    said = _PYTHON.sub(r"\1=\2", what_is_wrong(error, kind, _ENTRIES))
    return f"The assistant's context: {said}"


def _configuration(shape: Mapping[str, Any]) -> Configuration:
    """Return the mixture that a client describes.

    Raises:
        ValueError: If the mixture is invalid, or has `params`. The message names the field and
            the reason.
    """
    _check_only_settings(shape)
    try:
        configuration = Configuration(
            name="mixture", temperature=_TEMPERATURE, max_tokens=_MAX_TOKENS, **shape
        )
    except ValidationError as error:
        raise ValueError(_told(error, Configuration)) from None
    check_names_no_file(configuration)
    return configuration


def _check_only_settings(value: Any) -> None:
    """Reject `params` at any depth: it can set a base URL or an API key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "params":
                raise ValueError(
                    "The assistant's context: unknown field 'params': the server sets where "
                    "a model is served."
                )
            if name != "schema":
                _check_only_settings(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_only_settings(inner)
