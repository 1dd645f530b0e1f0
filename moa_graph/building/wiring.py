"""Build the edges of the graph from its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from langchain_core.runnables import Runnable
from langgraph.graph import END, START

from moa_graph.nodes.plan import AGGREGATOR
from moa_graph.state import decisions_of, has_ended, turn_of


class TaggedBuilder(Protocol):
    """LangGraph's `StateGraph`, with tags for the runs of nodes."""

    tags: dict[str, Sequence[str]]

    @property
    def add_node(self) -> Callable[..., Any]:
        """LangGraph's method to add a node."""

    @property
    def add_edge(self) -> Callable[..., Any]:
        """LangGraph's method to add an edge."""

    @property
    def add_conditional_edges(self) -> Callable[..., Any]:
        """LangGraph's method to add conditional edges."""


@dataclass(frozen=True)
class Node:
    """One node of the graph.

    Args:
        name: Name of the node.
        runnable: Runnable that the node runs.
        metadata: Metadata of its runs.
        tags: Tags of its runs.
        after: Nodes of the previous stage with an edge to this node; None for all.
        leads_to: Nodes that it names in a `Command`.
    """

    name: str
    runnable: Runnable[Any, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    after: Sequence[str] | None = None
    leads_to: Sequence[str] = ()


@dataclass(frozen=True)
class Stage:
    """Nodes that run in parallel.

    Args:
        nodes: The nodes.
        exits: Target nodes instead of the next stage, by outcome of the stage's decision.
        again: Function that returns whether to visit a node again; None if nodes are visited
            only once.
    """

    nodes: Sequence[Node]
    exits: Mapping[str, str] = field(default_factory=dict)
    again: Callable[[Any, str], bool] | None = None

    @property
    def names(self) -> list[str]:
        """Names of its nodes."""
        return [node.name for node in self.nodes]


def wire(
    builder: TaggedBuilder,
    stages: Sequence[Stage],
    *,
    loop: bool = False,
    entry: Node | None = None,
) -> None:
    """Add the stages to a graph in sequence.

    Args:
        builder: The graph builder.
        stages: The stages; the last one makes the answer.
        loop: Whether the last node leads back to the first stage until the answer is complete.
        entry: Node that decides which node comes first; by default the first stage is.
    """
    for stage in [*([Stage([entry])] if entry else []), *stages]:
        _add(builder, stage)
    for name in [entry.name] if entry else stages[0].names:
        builder.add_edge(START, name)
    for stage, following in pairwise(stages):
        _connect(builder, stage, following)
    back = loop_start(stages) if loop else [AGGREGATOR] if stages[-1].again else []
    if back:
        builder.add_conditional_edges(
            AGGREGATOR,
            lambda state: back if unfinished(state, AGGREGATOR) else [END],
            [*back, END],
        )
    else:
        builder.add_edge(AGGREGATOR, END)


def wire_without_answer(builder: TaggedBuilder, stages: Sequence[Stage]) -> None:
    """Add the stages to a graph in sequence, except for the last one, which makes the answer."""
    *asked, answer = stages
    for stage in asked:
        _add(builder, stage)
    for name in asked[0].names:
        builder.add_edge(START, name)
    for stage, following in pairwise(asked):
        _connect(builder, _ending(stage, answer), following)
    _connect(builder, _ending(asked[-1], answer), Stage([Node(END, answer.nodes[0].runnable)]))


def _ending(stage: Stage, answer: Stage) -> Stage:
    """Return the stage with exits that end the run instead of leading to the answer."""
    exits = {o: END if to in answer.names else to for o, to in stage.exits.items()}
    return Stage(stage.nodes, exits, stage.again)


def _add(builder: TaggedBuilder, stage: Stage) -> None:
    for node in stage.nodes:
        metadata = dict(node.metadata)
        leads_to = {"destinations": tuple(node.leads_to)} if node.leads_to else {}
        builder.add_node(node.name, node.runnable, metadata=metadata, **leads_to)
        builder.tags[node.name] = node.tags
        if stage.again and node.name != AGGREGATOR:
            builder.add_conditional_edges(node.name, _itself(node.name, stage.again), [node.name])


def _connect(builder: TaggedBuilder, stage: Stage, following: Stage) -> None:
    if stage.exits:
        (name,) = stage.names
        targets = dict.fromkeys([*following.names, *stage.exits.values()])
        way = _way(name, following.names, stage.exits)
        builder.add_conditional_edges(name, way, list(targets))
        return
    for node in following.nodes:
        for name in stage.names:
            if node.after is None or name in node.after:
                builder.add_edge(name, node.name)


def loop_start(stages: Sequence[Stage]) -> list[str]:
    """Return the nodes where a loop restarts: the first stage without exits."""
    return next(stage.names for stage in stages if not stage.exits)


def unfinished(state: Any, node: str) -> bool:
    """Return whether a node has more to write: its own draft and the answer are not complete."""
    return not (has_ended(state, node) or has_ended(state, AGGREGATOR))


def _itself(name: str, again: Callable[[Any, str], bool]) -> Callable[[Any], list[str]]:
    return lambda state: [name] if again(state, name) else []


def _way(
    step: str, following: Sequence[str], exits: Mapping[str, str]
) -> Callable[[Any], list[str]]:
    # No state annotation: with one, LangGraph would pass only the fields of that state.
    def way(state: Any) -> list[str]:
        turn = max(turn_of(state.get("proposals", [])), turn_of(decisions_of(state)))
        outcomes = (
            # If the run's context skips the layer, the state still has the last turn's decision.
            decision["outcome"]
            for decision in decisions_of(state)
            if decision["step"] == step and decision["turn"] == turn
        )
        return [exits[o] for o in outcomes if o in exits] or list(following)

    return way
