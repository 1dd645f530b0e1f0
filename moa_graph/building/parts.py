"""Resolve the arguments of a mixture into parts, and the parts into stages of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.graph import END

from moa_graph.building.arguments import check_hedges
from moa_graph.building.members import members_of, reserve_of
from moa_graph.building.wiring import Node, Stage, unfinished
from moa_graph.layers import Layer
from moa_graph.models import Model, as_model, chat_models_in, name_of_chat_model
from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.plan import AGGREGATOR, Member, Plan, Policy
from moa_graph.nodes.proposer import ProposerNode
from moa_graph.progressive.chunkwise import ChunkAggregator, ChunkProposer
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.progressive.staircase import StaircaseAggregator, StaircaseProposer, StaircaseReader
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.base import Strategy
from moa_graph.strategies.functions import FunctionRoute, FunctionRouteNode
from moa_graph.strategies.registry import as_selections, as_strategy, model_of
from moa_graph.strategies.route import NODE as FIRST_PASS
from moa_graph.strategies.route import Route, RouteNode
from moa_graph.strategies.select import Selection, SelectNode, Shuffle, Tree
from moa_graph.strategies.until import Until, UntilNode


@dataclass(frozen=True)
class Part:
    """One layer of proposers with resolved models and strategies."""

    layer: Layer
    members: list[Member]
    reserve: list[Member]
    selections: list[Selection]
    tree: Tree | None
    until: Until | None

    @classmethod
    def of(cls, layer: Layer, where: str) -> Part:
        """Return the part for a layer; `where` locates the layer in error messages."""
        selections = as_selections(layer.select, "Layer(select=…)")
        trees = [s for s in selections if isinstance(s, Tree)]
        if len(trees) > 1:
            raise ValueError("Layer(select=…) has more than one Tree. Use one Tree per layer.")
        members = members_of(layer, where)
        for selection in selections:
            selection.check(len(members))
        return cls(
            layer,
            members,
            reserve_of(layer, where),
            [s for s in selections if s not in trees],
            trees[0] if trees else None,
            as_strategy("until", layer.until, "Layer(until=…)"),
        )

    @property
    def policy(self) -> Policy:
        """The layer's policy, as nodes use it."""
        lettered = any(isinstance(s, Shuffle) and s.letters for s in self.selections)
        return Policy.of(self.layer, width=len(self.members), lettered=lettered)

    @property
    def models(self) -> list[Model]:
        """All models that may be called, including judges."""
        asking: list[Selection | Until] = [*self.selections, *([self.until] if self.until else [])]
        judges = [model for strategy in asking for model in strategy.models]
        return [*(member.model for member in (*self.members, *self.reserve)), *judges]


@dataclass(frozen=True)
class Mixture:
    """All parts of a mixture with resolved models and strategies."""

    parts: list[Part]
    answer: Model | AnswerStrategy
    own_members: list[Member]
    """Proposers of an extra last layer that the answer's strategy adds."""
    route: Route | FunctionRoute | None
    progressive: Staircase | Chunkwise | None
    repeated: bool
    """Whether one `Layer` is used for all layers."""

    @classmethod
    def of(
        cls,
        layers: Sequence[Layer],
        aggregator: Any,
        *,
        route: Route | FunctionRoute | None,
        progressive: Staircase | Chunkwise | None,
        repeated: bool,
    ) -> Mixture:
        """Return the parts of a mixture.

        Args:
            layers: The layers of proposers.
            aggregator: The `aggregator` argument of `create_moa`.
            route: The first pass before the proposers.
            progressive: How layers overlap.
            repeated: Whether one `Layer` is used for all layers.

        Raises:
            TypeError: If a part has the wrong type.
            ValueError: If a part is not valid in its position.
        """
        names = [f"proposers[{i}]" for i in range(len(layers))]
        if repeated:
            first = Part.of(layers[0], "proposers")
            parts = [first] * len(layers)
        else:
            parts = [Part.of(layer, name) for layer, name in zip(layers, names, strict=True)]
        parts = _with_trees(parts, repeated=repeated)
        answer = as_answer(aggregator)
        own: list[Member] = []
        if isinstance(answer, AnswerStrategy):
            own = answer.members(len(parts[-1].members))
            last = own or parts[-1].members
            answer.check({name for member in last for name in _names_of(member)})
        check_hedges([p.layer for p in parts], [[s.model for s in p.members] for p in parts])
        return cls(parts, answer, own, route, progressive, repeated)

    @property
    def strategy(self) -> AnswerStrategy | None:
        """The strategy that makes the answer; None if a model synthesizes it."""
        return self.answer if isinstance(self.answer, AnswerStrategy) else None

    @property
    def members(self) -> list[list[Member]]:
        """The proposers of each layer."""
        own = [self.own_members] if self.own_members else []
        return [part.members for part in self.parts] + own

    @property
    def reserves(self) -> list[Sequence[Member]]:
        """The reserve of each layer."""
        own: list[Sequence[Member]] = [()] if self.own_members else []
        return [*(part.reserve for part in self.parts), *own]

    @property
    def policies(self) -> list[Policy]:
        """The policy of each layer."""
        own = [Policy(len(self.own_members))] if self.own_members else []
        return [part.policy for part in self.parts] + own

    @property
    def models(self) -> list[Model]:
        """Every model that a run may call."""
        answering = self.answer.models if isinstance(self.answer, AnswerStrategy) else [self.answer]
        routing = self.route.models if self.route else ()
        of_layers = [model for part in self.parts for model in part.models]
        return [*of_layers, *(member.model for member in self.own_members), *answering, *routing]

    @property
    def loops(self) -> bool:
        """Whether nodes are visited several times."""
        comes_back = self.strategy is not None and self.strategy.comes_back
        return bool(self.progressive) or comes_back

    @property
    def decides(self) -> bool:
        """Whether the graph records decisions."""
        behind = any(part.selections or part.until for part in self.parts)
        return bool(self.strategy or self.route or behind)


def _names_of(member: Member) -> set[str]:
    """Return the names that a vote may use for a member: its own, its model's and fallbacks'."""
    model = member.model.built
    inside = map(name_of_chat_model, chat_models_in(model)) if model is not None else ()
    return {member.name, member.model.name, *inside}


def as_answer(given: Any) -> Model | AnswerStrategy:
    """Return the model or strategy that makes the answer; a function becomes a strategy.

    Raises:
        TypeError: If `given` is not a model, a strategy or a function.
        ValueError: If there is no strategy with that name.
    """
    if isinstance(given, Mapping) and "strategy" not in given:
        return as_model(model_of(given, "aggregator"), "aggregator")
    is_name = isinstance(given, str) and ":" not in given and given.isidentifier()
    is_function = callable(given) and not isinstance(given, Runnable | type | Model)
    if isinstance(given, Strategy | Mapping) or is_name or is_function:
        answer: AnswerStrategy = as_strategy("aggregator", given, "create_moa(aggregator=…)")
        return answer
    return as_model(given, "aggregator")


def _with_trees(parts: Sequence[Part], *, repeated: bool) -> list[Part]:
    """Return the parts, with members that read only what the previous layer's `Tree` allows."""
    built = [parts[0]]
    for before, part in pairwise(parts):
        members = part.members
        if before.tree:
            before.tree.check_readers(len(before.members), len(members))
            reads = [before.tree.reads(i, len(before.members)) for i in range(len(members))]
            members = [member.reading(own) for member, own in zip(members, reads, strict=True)]
        built.append(
            Part(part.layer, members, part.reserve, part.selections, part.tree, part.until)
        )
    if parts[-1].tree and (len(parts) == 1 or not repeated):
        raise ValueError(
            "Layer(select=Tree(…)) has no effect on the last layer of proposers: the aggregator "
            "reads all proposals. Use layers=3 or more, or remove it there."
        )
    return built


def stages_of(plan: Plan, mixture: Mixture) -> list[Stage]:
    """Return the stages of the graph, from first to last."""
    again = unfinished if isinstance(mixture.progressive, Staircase) else None
    strategy = mixture.strategy
    analysis = strategy.before(plan) if strategy else None
    answering = analysis.step_name if analysis else AGGREGATOR
    layers = len(mixture.parts)
    total = layers + bool(mixture.own_members)

    stages = [_route_stage(plan, mixture.route)] if mixture.route else []
    nodes: list[list[ProposerNode]] = []
    for number, part in enumerate(mixture.parts, 1):
        before = mixture.parts[number - 2] if number > 1 else None
        stages.append(_layer_stage(plan, mixture, nodes, part.members, before, again))
        if part.selections:
            selection = SelectNode(plan, number, part.selections)
            stages.append(Stage([Node(selection.step_name, selection)]))
        if part.until and (number < total or part.until.then == "answer"):
            exits = {"answer": END} if part.until.then == "answer" else {"exit": answering}
            condition = UntilNode(plan, number, part.until)
            stages.append(Stage([Node(condition.step_name, condition)], exits))
    if mixture.own_members:
        stages.append(
            _layer_stage(plan, mixture, nodes, mixture.own_members, mixture.parts[-1], again)
        )
    if analysis:
        stages.append(Stage([Node(analysis.step_name, analysis)]))
    last = Node(
        AGGREGATOR,
        _answer_node(plan, mixture, nodes),
        {"moa_layer": plan.layers},
        [f"moa:layer:{plan.layers}", "moa:aggregator"],
    )
    comes_back = strategy is not None and strategy.comes_back
    stages.append(Stage([last], again=unfinished if comes_back else again))
    return stages


def _route_stage(plan: Plan, route: Route | FunctionRoute) -> Stage:
    made = RouteNode(plan, route) if isinstance(route, Route) else FunctionRouteNode(plan, route)
    return Stage([Node(FIRST_PASS, made)], {"alone": END})


def _layer_stage(
    plan: Plan,
    mixture: Mixture,
    nodes: list[list[ProposerNode]],
    members: Sequence[Member],
    before: Part | None,
    again: Any,
) -> Stage:
    """Return the stage of a layer, and append its nodes to `nodes`."""
    number = len(nodes) + 1
    known = [(node.node, node.proposer) for node in nodes[-1]] if nodes else []
    reserve = mixture.parts[number - 1].reserve if number <= len(mixture.parts) else []
    nodes.append(
        [
            _proposer(plan, number, i, member, known, mixture.progressive, reserve)
            for i, member in enumerate(members)
        ]
    )
    # Only the edges that a tree uses. A decision node in between needs all edges.
    direct = before is not None and before.tree and not (before.selections or before.until)
    edges = [
        [known[i][0] for i in before.tree.places(reader, len(known))]
        if direct and before and before.tree
        else None
        for reader in range(len(members))
    ]
    described = [_described(n, after) for n, after in zip(nodes[-1], edges, strict=True)]
    return Stage(described, again=again)


def _proposer(
    plan: Plan,
    layer: int,
    position: int,
    member: Member,
    before: Sequence[tuple[str, str]],
    progressive: Staircase | Chunkwise | None,
    reserve: Sequence[Member],
) -> ProposerNode:
    place: dict[str, Any] = {
        "layer": layer,
        "position": position,
        "proposer": member.name,
        "node": member.node_name(layer),
        "model": member.model,
        "prompt": member.prompt,
        "sample": member.sample,
        "timeout": member.timeout,
        "reads": member.reads,
        "cache_key": member.cache_key,
        "reserve": reserve,
    }
    if isinstance(progressive, Chunkwise):
        return ChunkProposer(plan, progressive, before, **place)
    if isinstance(progressive, Staircase):
        if layer == 1:
            return StaircaseProposer(plan, progressive, **place)
        return StaircaseReader(plan, progressive, before, **place)
    return ProposerNode(plan, **place)


def _answer_node(
    plan: Plan, mixture: Mixture, nodes: Sequence[Sequence[ProposerNode]]
) -> AnswerNode:
    answer, progressive = mixture.answer, mixture.progressive
    if isinstance(answer, AnswerStrategy):
        return answer.node(plan)
    if isinstance(progressive, Chunkwise):
        return ChunkAggregator(plan, answer, progressive, nodes)
    if isinstance(progressive, Staircase):
        return StaircaseAggregator(plan, answer, progressive, nodes)
    return AggregatorNode(plan, answer)


def _described(node: ProposerNode, after: Sequence[str] | None) -> Node:
    return Node(
        node.node,
        node,
        {"moa_layer": node.layer, "moa_proposer": node.proposer},
        [f"moa:layer:{node.layer}", f"moa:proposer:{node.proposer}"],
        after,
    )
