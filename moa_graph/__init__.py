"""Mixture-of-Agents (arXiv 2406.04692) as a LangGraph graph."""

from moa_graph.budget import Budget
from moa_graph.chat_model import ChatMoA
from moa_graph.completion import Hedge, Quorum
from moa_graph.context import MoAContext
from moa_graph.errors import AggregationFailed, MoAError, NotEnoughProposals
from moa_graph.graph import create_moa
from moa_graph.limits import CallLimits
from moa_graph.proposers import Proposer
from moa_graph.state import MoAState, Proposal, merge_proposals

__all__ = [
    "AggregationFailed",
    "Budget",
    "CallLimits",
    "ChatMoA",
    "Hedge",
    "MoAContext",
    "MoAError",
    "MoAState",
    "NotEnoughProposals",
    "Proposal",
    "Proposer",
    "Quorum",
    "create_moa",
    "merge_proposals",
]
