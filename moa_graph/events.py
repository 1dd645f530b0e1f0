"""What `stream_mode="custom"` yields: small progress events, for progress bars."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from moa_graph.state import ProposalStatus


class ProposerStarted(TypedDict):
    """A proposer calls its model."""

    type: Literal["proposer_started"]
    layer: int
    proposer: str
    model: str


class ProposerProgress(TypedDict):
    """How much a proposer that streams has written so far; at most ten a second each.

    Models stream when their tokens are asked for: with `stream_proposals=True` and
    `stream_mode="messages"` among the modes.
    """

    type: Literal["proposer_progress"]
    layer: int
    proposer: str
    tokens: int
    """Chunks so far, which for most providers are tokens."""


class ProposerEnded(TypedDict):
    """A proposer has answered, or failed."""

    type: Literal["proposer_ended"]
    layer: int
    proposer: str
    status: ProposalStatus
    latency: float
    """Seconds."""
    tokens: int | None
    """Output tokens, where the provider tells."""
    error: str | None


class LayerEnded(TypedDict):
    """All proposers of a layer have ended; what they said goes on."""

    type: Literal["layer_ended"]
    layer: int
    ok: int
    """How many proposals go on."""
    failed: int
    """How many do not."""


class AggregatorStarted(TypedDict):
    """The aggregator calls its model."""

    type: Literal["aggregator_started"]
    layer: int
    model: str


class StepDecided(TypedDict):
    """A step beside the proposers has decided: a selection, an early exit, a choice."""

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
"""Any event of `stream_mode="custom"`; `event["type"]` tells which."""
