"""Settings that all nodes of a graph share: layer policies, models and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from moa_graph.calling.cache import StoredProposals
from moa_graph.calling.turn import digest
from moa_graph.calling.waiting import Hedge, Quorum
from moa_graph.errors import NotEnoughProposals
from moa_graph.layers import Layer, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.models import Model
from moa_graph.models.identity import identity_of
from moa_graph.models.text import sentence
from moa_graph.nodes.panels import Panels
from moa_graph.nodes.shared import RunsInProgress
from moa_graph.state import Proposal, proposals_of_layer, usable

AGGREGATOR = "aggregator"
"""The name of the aggregator's node."""
Reads: TypeAlias = Callable[[list[Proposal]], list[Proposal]]
"""Function that selects the references that a model is shown."""


@dataclass(frozen=True)
class Member:
    """One proposer in a layer."""

    name: str
    model: Model
    prompt: str | None
    sample: int
    """Number of earlier members of the layer with the same model and role."""
    timeout: float | None
    reads: Reads | None = None
    """Selects the references that it is shown; None for all."""
    cache_key: str | None = None
    """Identifies its model in a cache."""

    def node_name(self, layer: int) -> str:
        """Return the name of its node in a layer."""
        return f"layer_{layer}_{self.name}"

    def reading(self, reads: Reads) -> Member:
        """Return a copy with this selection of references."""
        return replace(self, reads=reads)


@dataclass(frozen=True)
class Policy:
    """Settings of a layer of proposers, as nodes use them."""

    width: int
    """Number of proposers."""
    min_proposals: int = 1
    quorum: Quorum | None = None
    timeout: float | None = None
    hedge: Hedge | None = None
    references: References | None = None
    """How its models are shown references; None for the graph's setting."""
    lettered: bool = False
    """Whether its proposals are labeled A, B, … instead of 1, 2, …"""

    @classmethod
    def of(cls, layer: Layer, *, width: int, lettered: bool) -> Policy:
        """Return the policy of a layer with `width` proposers."""
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
        """Return whether a run can set this quorum for the layer."""
        return self.min_proposals <= quorum <= self.width


@dataclass(frozen=True)
class Plan:
    """Settings that all nodes of a graph share."""

    policies: Sequence[Policy]
    """The policy of each layer of proposers."""
    models: Sequence[Model]
    """Every model of the graph."""
    references: References
    stream_proposals: bool
    concurrency: int
    """Number of threads for a sync run's nodes: LangGraph's `max_concurrency`."""
    limits: RunLimits | None = None
    calls: CallPolicy = field(default_factory=CallPolicy)
    overlaps: bool = False
    """Whether layers run at the same time, as in a staircase."""
    routed: bool = False
    """Whether each turn begins with a first pass (`Route`)."""
    cache: StoredProposals | None = None
    recipe: tuple[Any, Mapping[str, Any]] = (None, {})
    """Function and arguments that build the graph again."""
    members: Sequence[Sequence[Member]] = ()
    """The proposers of each layer."""
    reserves: Sequence[Sequence[Member]] = ()
    """Those that take the places of failed proposers, by layer."""
    asked: dict[Any, Any] = field(default_factory=dict)
    """Models that the user's functions have called, by the value that they passed."""
    runs: RunsInProgress = field(default_factory=RunsInProgress)

    @cached_property
    def panels(self) -> Panels:
        """The proposals of turns of agents."""
        return Panels(self.cache)

    @cached_property
    def identity(self) -> str:
        """Digest of everything in the graph that affects its proposals."""
        _, arguments = self.recipe
        return digest(identity_of({name: arguments.get(name) for name in _IDENTIFYING}))

    @property
    def layers(self) -> int:
        """Number of layers in the graph, including the aggregator's."""
        return len(self.policies) + 1

    def not_enough(self, layer: int, proposals: list[Proposal]) -> NotEnoughProposals:
        """Return the error for a layer with too few usable proposals."""
        own = proposals_of_layer(proposals, layer)
        reasons = "; ".join(
            f"{p['proposer']}: {p['error'] or p['status']}" for p in own if p["status"] != "ok"
        )
        policy = self.policies[layer - 1]
        return NotEnoughProposals(
            f"Layer {layer} gave {len(usable(own))} usable proposals of {policy.width}, but "
            f"min_proposals is {policy.min_proposals}. {sentence(reasons)}",
            proposals,
        )


_IDENTIFYING = ("proposers", "aggregator", "layers", "references", "route", "progressive")
