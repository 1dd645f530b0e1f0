"""Mixture-of-Agents (arXiv 2406.04692) as a LangGraph graph."""

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
from moa_graph.graph import create_moa
from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.state import MoAState, Proposal, merge_proposals

__all__ = [
    "AggregationFailed",
    "AggregationRefused",
    "CallPolicy",
    "ChatMoA",
    "Layer",
    "MoAContext",
    "MoAError",
    "MoAGraph",
    "MoAState",
    "NotEnoughProposals",
    "Proposal",
    "ProposalCache",
    "Proposer",
    "References",
    "RunLimits",
    "create_moa",
    "merge_proposals",
]


def __dir__() -> list[str]:
    return sorted(__all__)
