"""What streams show of a run: events of `stream_mode="custom"`, and the proposals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from langgraph.stream import ProtocolEvent, StreamChannel, StreamTransformer
from typing_extensions import TypedDict

from moa_graph.state import Proposal, ProposalStatus


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


class ProposalMade(TypedDict):
    """`ChatMoA` has a new proposal, in a stream of the graph around it."""

    type: Literal["proposal"]
    proposal: Proposal


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
    | ProposalMade
    | LayerEnded
    | AggregatorStarted
    | StepDecided
)
"""Any event of `stream_mode="custom"`; `event["type"]` is its type."""


class ProposalStream(StreamTransformer):
    """The proposals of a run as they arrive: `stream.extensions["proposals"]`.

    It works in event streams of version 3, at any depth: with a graph of `create_moa`, with a
    graph that has `ChatMoA` inside, and with an agent that has `MoAMiddleware`. The middleware and
    the server register it, so do not pass it there again. Proposals that a later call of an
    agent's turn reuses are not repeated.

    Example:
        ```python
        stream = await moa.astream_events(
            {"messages": "Hi"}, version="v3", transformers=[ProposalStream]
        )
        async for proposal in stream.extensions["proposals"]:
            print(proposal["proposer"], proposal["content"])
        ```
    """

    required_stream_modes = ("custom", "updates")

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        super().__init__(scope)
        self._proposals: StreamChannel[Proposal] = StreamChannel("proposals")
        self._seen: set[str] = set()

    def init(self) -> dict[str, Any]:
        """Return the channel of the proposals."""
        return {"proposals": self._proposals}

    def process(self, event: ProtocolEvent) -> bool:
        """Push the proposals of an event of the stream, and keep the event in the stream."""
        for proposal in _proposals_in(event["method"], event["params"]["data"]):
            record = proposal.get("id")
            if record is None or record not in self._seen:
                self._proposals.push(proposal)
            if record is not None:
                self._seen.add(record)
        return True


def _proposals_in(method: str, data: Any) -> Iterator[Proposal]:
    if method == "custom" and isinstance(data, dict) and data.get("type") == "proposal":
        yield data["proposal"]
    if method == "updates" and isinstance(data, dict):
        for node, update in data.items():
            if node != CONSULT and isinstance(update, dict):
                yield from _written(update.get("proposals"))


def _written(value: Any) -> Iterator[Proposal]:
    proposals = value if isinstance(value, list) else ()
    for proposal in proposals:
        if isinstance(proposal, dict) and proposal.keys() >= _PROPOSAL:
            yield cast(Proposal, proposal)


_PROPOSAL = {"layer", "proposer", "content", "status"}
CONSULT = "consult"
"""Node that gives a call of an agent the proposals of an earlier call of its turn."""
