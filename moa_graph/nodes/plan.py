"""What all nodes of one graph share: its layers' policies, its models and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from langchain_core.runnables import Runnable

from moa_graph.calling.cache import StoredProposals
from moa_graph.calling.waiting import Hedge, Quorum
from moa_graph.layers import Layer, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.models import (
    Model,
    own_retries,
)
from moa_graph.nodes.shared import RunsInProgress
from moa_graph.state import Proposal

AGGREGATOR = "aggregator"
"""The name of the aggregator's node."""
Reads: TypeAlias = Callable[[list[Proposal]], list[Proposal]]
"""Which of the references a model is shown."""


@dataclass(frozen=True)
class Member:
    """One proposer's place in a layer."""

    name: str
    model: Model
    prompt: str | None
    sample: int
    """How many earlier ones of its layer have the same model and role."""
    timeout: float | None
    reads: Reads | None = None
    """What it is shown of the references; None for all."""
    cache_key: str | None = None
    """By what a cache knows its model."""

    def node_name(self, layer: int) -> str:
        """Its node's name in that layer."""
        return f"layer_{layer}_{self.name}"

    def reading(self, reads: Reads) -> Member:
        """Return the same place, with what it is shown of the references."""
        return replace(self, reads=reads)


@dataclass(frozen=True)
class Policy:
    """What nodes know of a layer of proposers."""

    width: int
    """How many proposers it has."""
    min_proposals: int = 1
    quorum: Quorum | None = None
    timeout: float | None = None
    hedge: Hedge | None = None
    references: References | None = None
    """How its models are shown references; None: as the graph says."""
    lettered: bool = False
    """Whether its proposals are called A, B, … instead of 1, 2, …"""

    @classmethod
    def of(cls, layer: Layer, *, width: int, lettered: bool) -> Policy:
        """Return that of a layer, which has `width` proposers."""
        return cls(
            width,
            layer.min_proposals,
            None if layer.quorum is None else Quorum(layer.quorum, layer.grace),
            layer.timeout,
            None if layer.hedge is None else Hedge(layer.hedge),
            layer.references,
            lettered,
        )

    def has_room(self, quorum: int) -> bool:
        """Return whether a run may ask for that quorum."""
        return self.min_proposals <= quorum <= self.width


@dataclass(frozen=True)
class Plan:
    """What all nodes of a graph share."""

    policies: Sequence[Policy]
    """Of each layer of proposers."""
    models: Sequence[Model]
    """Every model of the graph."""
    references: References
    stream_proposals: bool
    concurrency: int
    """Proposers that run at once; what LangGraph is given as `max_concurrency`."""
    limits: RunLimits | None = None
    calls: CallPolicy = field(default_factory=CallPolicy)
    overlaps: bool = False
    """Whether layers work at the same time, as in a staircase."""
    routed: bool = False
    """Whether a first pass begins each turn."""
    cache: StoredProposals | None = None
    recipe: tuple[Any, Mapping[str, Any]] = (None, {})
    """How to make the graph again: the function, and its arguments."""
    proposers: Sequence[Sequence[str]] = ()
    """The names of each layer's proposers."""
    asked: dict[Any, Any] = field(default_factory=dict)
    """Models that functions have asked, with what they were given as."""
    runs: RunsInProgress = field(default_factory=RunsInProgress)

    @property
    def layers(self) -> int:
        """Layers built, the aggregator's included."""
        return len(self.policies) + 1

    def retries_of(self, model: Runnable[Any, Any]) -> int:
        """Return how often a call of that model is repeated after an error that can pass."""
        if self.calls.retries is not None:
            return self.calls.retries
        return max(own_retries(model) or 0, _DEFAULT_RETRIES)


_DEFAULT_RETRIES = 2  # as OpenAI's client has it
