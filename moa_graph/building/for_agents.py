"""Graphs for agents, made from a graph of `create_moa`: with the same nodes, other edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moa_graph.building.compiled import MoAGraph
from moa_graph.building.wiring import Node, Stage, wire, wire_without_answer
from moa_graph.events import CONSULT
from moa_graph.nodes.consult import ConsultNode
from moa_graph.nodes.plan import AGGREGATOR
from moa_graph.progressive.chunkwise import ChunkAggregator, ChunkProposer
from moa_graph.progressive.reusing import ReusingAggregator
from moa_graph.progressive.staircase import StaircaseAggregator


def once_a_turn(graph: MoAGraph) -> MoAGraph:
    """Return the graph with a first node that skips the proposers if this turn has proposals.

    Args:
        graph: A graph of `create_moa`.
    """
    if (known := graph.builder.variants.get("once_a_turn")) is not None:
        return _as(graph, known)
    stages = [*graph.builder.stages[:-1], _reusing(graph.builder.stages[-1])]
    builder = graph.builder.empty()
    first = stages[0].names
    entry = Node(CONSULT, ConsultNode(graph.plan, first), leads_to=[*first, AGGREGATOR])
    loop = any(isinstance(node.runnable, ChunkProposer) for node in stages[0].nodes)
    wire(builder, stages, entry=entry, loop=loop)
    graph.builder.variants["once_a_turn"] = builder.compile()
    return _as(graph, graph.builder.variants["once_a_turn"])


def without_answer(graph: MoAGraph) -> MoAGraph:
    """Return the graph without its aggregator: its result is the proposals.

    Args:
        graph: A graph of `create_moa`, not a progressive one.
    """
    builder = graph.builder.empty()
    wire_without_answer(builder, graph.builder.stages)
    return _as(graph, builder.compile())


def is_progressive(graph: MoAGraph) -> bool:
    """Return whether layers begin before the previous layer has ended."""
    (node,) = graph.builder.stages[-1].nodes
    return isinstance(node.runnable, StaircaseAggregator | ChunkAggregator)


def _as(graph: MoAGraph, other: MoAGraph) -> MoAGraph:
    own = ("name", "store", "config", "stream_transformers")
    return other.copy({name: getattr(graph, name) for name in own})


def _reusing(stage: Stage) -> Stage:
    """Return the last stage with an aggregator that can answer from earlier proposals."""
    (node,) = stage.nodes
    made: Any = node.runnable
    if not isinstance(made, StaircaseAggregator | ChunkAggregator):
        return stage
    return replace(stage, nodes=[replace(node, runnable=ReusingAggregator(made))])
