"""Events of `stream_mode="custom"`, for progress bars."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from moa_graph.state import ProposalStatus


class ProposerStarted(TypedDict):
    """A proposer starts to call its model."""

    type: Literal["proposer_started"]
    layer: int
    proposer: str
    model: str


class ProposerProgress(TypedDict):
    """Progress of a streaming proposer; at most ten events per second for each proposer.

    Proposers stream with `stream_proposals=True` and if `"messages"` is one of the stream modes.
    """

    type: Literal["proposer_progress"]
    layer: int
    proposer: str
    tokens: int
    """Chunks received so far; for most providers one chunk is one token."""


class ProposerEnded(TypedDict):
    """A proposer has answered, or failed."""

    type: Literal["proposer_ended"]
    layer: int
    proposer: str
    status: ProposalStatus
    latency: float
    """Seconds."""
    tokens: int | None
    """Output tokens; None if the provider reports no usage."""
    error: str | None


class LayerEnded(TypedDict):
    """All proposers of a layer have ended."""

    type: Literal["layer_ended"]
    layer: int
    ok: int
    """Number of usable proposals."""
    failed: int
    """Number of other proposals."""


class AggregatorStarted(TypedDict):
    """The aggregator starts to call its model."""

    type: Literal["aggregator_started"]
    layer: int
    model: str


class StepDecided(TypedDict):
    """A selection, a condition, a route or an answer strategy has made a decision."""

    type: Literal["step_decided"]
    step: str
    layer: int
    outcome: str
    """As in the `Decision`: `"kept"`, `"exit"`, `"alone"` …"""
    error: str | None


MoAEvent = (
    ProposerStarted
    | ProposerProgress
    | ProposerEnded
    | LayerEnded
    | AggregatorStarted
    | StepDecided
)
"""Any event of `stream_mode="custom"`; `event["type"]` is its type."""
