"""Build a Mixture-of-Agents graph: layers of parallel proposers, then one aggregator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from langgraph.cache.base import BaseCache
from langgraph.graph import MessagesState
from langgraph.store.base import BaseStore
from langgraph.types import Checkpointer

from moa_graph.building.arguments import (
    as_cache,
    as_object,
    as_references,
    check_aggregator,
    check_concurrent,
    check_langgraphs,
    check_prices,
    check_types,
)
from moa_graph.building.compiled import MoABuilder, MoAGraph
from moa_graph.building.members import is_list_of_layers, layers_of
from moa_graph.building.parts import Mixture, stages_of
from moa_graph.building.rules import check_combination
from moa_graph.building.wiring import wire
from moa_graph.calling.cache import ProposalCache, StoredProposals, why_not_cached
from moa_graph.context import MoAContext, context_schema_of
from moa_graph.errors import call_checked, nearest
from moa_graph.layers import Layer, Proposer, ProposerLike, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.models import ModelLike
from moa_graph.nodes.plan import Member, Plan
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.state import DecidedState, DraftedDecidedState, DraftedState, MoAState
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.registry import as_strategy
from moa_graph.strategies.route import Route

logger = logging.getLogger("moa_graph")

_STATES: dict[tuple[bool, bool], type[MoAState]] = {  # key: (graph loops, graph records decisions)
    (False, False): MoAState,
    (False, True): DecidedState,
    (True, False): DraftedState,
    (True, True): DraftedDecidedState,
}


@call_checked(
    *(Layer, Proposer, References, RunLimits, CallPolicy),
    example="create_moa(['provider:model', …], 'provider:model'); for a preset or a file, "
    "moa_graph.presets.load_preset(name).create()",
)
def create_moa(
    proposers: Layer | Sequence[ProposerLike] | Sequence[Layer | Sequence[ProposerLike]],
    aggregator: ModelLike | AnswerStrategy | Mapping[str, Any] | Callable[..., Any],
    *,
    layers: int | None = None,
    references: References | Mapping[str, Any] | None = None,
    route: Route | str | Mapping[str, Any] | Callable[..., Any] | None = None,
    progressive: Staircase | str | Mapping[str, Any] | None = None,
    limits: RunLimits | Mapping[str, Any] | None = None,
    calls: CallPolicy | Mapping[str, Any] | None = None,
    stream_proposals: bool = False,
    context_schema: type[MoAContext] = MoAContext,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | ProposalCache | None = None,
    interrupt_before: Sequence[str] | Literal["*"] | None = None,
    interrupt_after: Sequence[str] | Literal["*"] | None = None,
    name: str = "moa",
) -> MoAGraph:
    """Build a Mixture-of-Agents (arXiv 2406.04692, section 2) as a compiled LangGraph graph.

    Args:
        proposers: The models that answer in parallel: a list of models or one `Layer`, used for
            every layer, or a list with one `Layer` (or list of models) per layer. A model is
            `"provider:model"`, a chat model, a Runnable from messages to a message, or a
            `Proposer` with a name, a role or samples.
        aggregator: The model that writes the answer from the last layer's proposals. Instead of
            a model: a strategy of `moa_graph.strategies`, such as `Rank` or `Vote`, or your own
            function: `async def aggregate(references, run) -> str`.
        layers: Number of layers, including the aggregator's, as the paper counts them: 2
            (default) is one layer of proposers and the aggregator, 3 is the paper's MoA. A list
            of `Layer`s sets this number.
        references: How the proposals are shown to later layers and to the aggregator; by default
            as in the paper.
        route: A first pass before the proposers are called: a `Route`, or your own function.
        progressive: `Staircase()` starts each layer and the aggregator on the first chunks of the
            previous layer, so the first token arrives early.
        limits: Time, token and cost limits of one run.
        calls: Retries and concurrency for all runs. Several graphs can share one object.
        stream_proposals: Whether `stream_mode="messages"` also yields the proposers' tokens. Use
            `metadata["moa_layer"]` and `metadata["moa_proposer"]` to tell them apart.
        context_schema: `MoAContext`, or a subclass of it with your own settings.
        checkpointer: Stores threads, for follow-up turns and for resuming after a failure.
        store: LangGraph's long-term store, for the nodes inside agents given as models.
        cache: Stores proposals for reuse: any LangGraph cache (in memory, SQLite, Redis), or a
            `ProposalCache` with a time to live.
        interrupt_before: Nodes before which a run stops, such as `["aggregator"]`, as in
            LangGraph.
        interrupt_after: Nodes after which a run stops, as in LangGraph.
        name: The name of the graph, and of its root run in LangSmith.

    Returns:
        A graph from `{"messages": …}` to `{"messages": …, "proposals": …}`. The answer is the
        last message; `proposals` has the `Proposal`s of every layer. `builder` is the
        `StateGraph`. Each run accepts a `MoAContext`.

    Raises:
        TypeError: If an argument has the wrong type or does not exist. The error names the
            argument and the fix.
        ValueError: If there is no proposer, `layers` contradicts the list, names collide, a
            model's provider is unknown or not installed, a value is out of range, or an option
            would have no effect.

    A run raises `NotEnoughProposals` or `AggregationFailed`, which carry the proposals. It raises
    `ValueError` if the conversation has no question, before any model is called.

    Example:
        ```python
        moa = create_moa(
            ["together:openai/gpt-oss-120b", "together:zai-org/GLM-5.2"],
            "together:deepseek-ai/DeepSeek-V4-Pro",
        )
        moa.invoke({"messages": "What are 3 fun things to do in SF?"})["messages"][-1].text
        ```
    """
    arguments = dict(locals())
    check_types(name=(name, str), stream_proposals=(stream_proposals, bool))
    check_langgraphs(context_schema, store)
    check_aggregator(aggregator)
    mixture = Mixture.of(
        layers_of(proposers, layers),
        aggregator,
        route=as_strategy("route", route, "create_moa(route=…)"),
        progressive=as_strategy("progressive", progressive, "create_moa(progressive=…)"),
        repeated=not isinstance(proposers, Sequence) or not is_list_of_layers(proposers),
    )
    kept = as_cache(cache)
    check_combination(
        mixture,
        references=as_references(references),
        cached=kept is not None,
    )
    given_limits = as_object("limits", limits, RunLimits)
    check_prices(given_limits, mixture.models)
    given_calls = as_object("calls", calls, CallPolicy) or CallPolicy()
    check_concurrent(given_calls, mixture.models)
    widths = [len(members) for members in mixture.members]
    plan = Plan(
        policies=mixture.policies,
        models=mixture.models,
        references=as_references(references),
        stream_proposals=stream_proposals,
        # Sync runs need one thread per proposer and one for the stream, on any number of cores.
        concurrency=(sum if mixture.progressive else max)(widths) + 2,
        members=mixture.members,
        reserves=mixture.reserves,
        limits=given_limits,
        calls=given_calls,
        overlaps=isinstance(mixture.progressive, Staircase),
        routed=mixture.route is not None,
        cache=StoredProposals(kept.cache, kept.ttl) if kept else None,
        recipe=(create_moa, arguments),
    )
    if kept:
        _tell_what_is_not_cached([member for members in mixture.members for member in members])
    builder = _builder(plan, mixture, context_schema)
    builder.stages = stages_of(plan, mixture)
    wire(builder, builder.stages, loop=isinstance(mixture.progressive, Chunkwise))
    return builder.compile(
        checkpointer,
        store=store,
        interrupt_before=_nodes("interrupt_before", interrupt_before, builder),
        interrupt_after=_nodes("interrupt_after", interrupt_after, builder),
        name=name,
    )


def _builder(plan: Plan, mixture: Mixture, context_schema: type[MoAContext]) -> MoABuilder:
    """Return LangGraph's builder with the state and context schemas of this mixture."""
    schema = context_schema_of(
        context_schema,
        proposers=[
            member.node_name(number)
            for number, members in enumerate(mixture.members, 1)
            for member in members
        ],
        layers=plan.layers,
        quorum=max(policy.width for policy in plan.policies),
    )
    return MoABuilder(
        _STATES[mixture.loops, mixture.decides],
        schema,
        input_schema=MessagesState,
        output_schema=DecidedState if mixture.decides else MoAState,
        plan=plan,
        loops=mixture.loops,
    )


def _nodes(
    argument: str, given: Sequence[str] | Literal["*"] | None, builder: MoABuilder
) -> Sequence[str] | Literal["*"] | None:
    """Return the given node names after checking that the nodes exist.

    Raises:
        TypeError: If `given` is not a list of names.
        ValueError: If a node does not exist.
    """
    if given is None or given == "*":
        return given
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(
            f"create_moa({argument}={given!r}) must be a list of nodes, such as ['aggregator'], or "
            "'*' for all."
        )
    for node in given:
        if node not in builder.nodes:
            raise ValueError(
                f"create_moa({argument}=…) names {node!r}, which is not a node of this graph."
                f"{nearest(str(node), builder.nodes)} Nodes are: {', '.join(builder.nodes)}."
            )
    return given


def _tell_what_is_not_cached(members: Sequence[Member]) -> None:
    """Log which proposers the cache cannot serve, and why."""
    reasons = {
        member.name: why
        for member in members
        if member.cache_key is None
        and member.model.built
        and (why := why_not_cached(member.model.built))
    }
    if reasons:
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        logger.warning(
            "These proposers are not cached, as nothing tells their model from another one: %s. "
            "Give Proposer(model, cache_key=…), and change the key whenever the model's answers "
            "may change.",
            listed,
        )
