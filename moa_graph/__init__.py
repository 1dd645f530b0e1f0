"""Mixture-of-Agents (arXiv 2406.04692) as a LangGraph graph."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from moa_graph.middleware import MoAMiddleware, consult_tool
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

_NAMES_IN = {
    "building.compiled": ["MoAGraph"],
    "calling.cache": ["ProposalCache"],
    "chat_model": ["ChatMoA"],
    "context": ["MoAContext"],
    "errors": ["AggregationFailed", "AggregationRefused", "MoAError", "NotEnoughProposals"],
    "events": ["ProposalStream"],
    "graph": ["create_moa"],
    "layers": ["Layer", "Proposer", "References"],
    "limits": ["CallPolicy", "RunLimits"],
    "middleware": ["MoAMiddleware", "consult_tool"],
    "state": ["MoAState", "Proposal", "merge_proposals"],
}
_MODULES = {name: module for module, names in _NAMES_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    # As in LangChain's packages, a name is imported when it is used: LangGraph takes a while to
    # import, LangChain's agents longer, and not everybody needs them.
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
