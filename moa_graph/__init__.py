"""Mixture-of-Agents (arXiv 2406.04692) as a LangGraph graph."""

from typing import TYPE_CHECKING, Any

from moa_graph.building.compiled import MoAGraph
from moa_graph.calling.cache import ProposalCache
from moa_graph.chat_model import ChatMoA
from moa_graph.context import MoAContext
from moa_graph.errors import (
    AggregationFailed,
    AggregationRefused,
    MoAError,
    NotEnoughProposals,
)
from moa_graph.events import ProposalStream
from moa_graph.graph import create_moa
from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.state import MoAState, Proposal, merge_proposals

if TYPE_CHECKING:
    from moa_graph.middleware import MoAMiddleware, consult_tool

__all__ = [
    "AggregationFailed",
    "AggregationRefused",
    "CallPolicy",
    "ChatMoA",
    "Layer",
    "MoAContext",
    "MoAError",
    "MoAGraph",
    "MoAMiddleware",
    "MoAState",
    "NotEnoughProposals",
    "Proposal",
    "ProposalCache",
    "ProposalStream",
    "Proposer",
    "References",
    "RunLimits",
    "consult_tool",
    "create_moa",
    "merge_proposals",
]


_OF_AGENTS = ("MoAMiddleware", "consult_tool")


def __getattr__(name: str) -> Any:
    # LangChain's agents take a while to import, and not everybody needs them.
    if name in _OF_AGENTS:
        from moa_graph import middleware  # noqa: PLC0415

        return getattr(middleware, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
