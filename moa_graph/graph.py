"""The shape of a Mixture-of-Agents: layers of parallel proposers, then one aggregator."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.graph import END, MessagesState, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import CachePolicy, Checkpointer, RetryPolicy

from moa_graph._compat import as_graph, tag_node
from moa_graph.arguments import (
    as_policies,
    checked_budget,
    checked_count,
    checked_hedge,
    checked_limits,
    checked_minimum,
    checked_quorum,
    checked_text,
    checked_timeout,
)
from moa_graph.budget import Budget
from moa_graph.caching import ProposalCache, why_not_cached
from moa_graph.compiled import LoopingGraph, MoAGraph
from moa_graph.completion import Hedge, Quorum
from moa_graph.context import MoAContext, context_schema_of
from moa_graph.limits import CallLimits
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes import AggregatorNode, AnswerNode, ProposerNode
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_graph.proposers import ProposerLike, Seat, layers_of
from moa_graph.retries import for_nodes
from moa_graph.state import DecidedState, DraftedDecidedState, DraftedState, MoAState
from moa_graph.steps import Plan
from moa_graph.strategies.answers import AnswerStrategy
from moa_graph.strategies.chunkwise import ChunkAggregator, ChunkProposer
from moa_graph.strategies.combining import (
    as_selections,
    check_combination,
    check_kinds,
    check_writers,
)
from moa_graph.strategies.early_exit import Until, UntilNode
from moa_graph.strategies.pieces import Chunkwise, Staircase
from moa_graph.strategies.route import NODE as FIRST_PASS
from moa_graph.strategies.route import Route, RouteNode
from moa_graph.strategies.selection import Selection, SelectNode, Shuffle, Tree
from moa_graph.strategies.staircase import (
    StaircaseAggregator,
    StaircaseProposer,
    StaircaseReader,
)
from moa_graph.wiring import AGGREGATOR, Node, Stage, unfinished, wire

logger = logging.getLogger("moa_graph")

_STATES: dict[tuple[bool, bool], type[MoAState]] = {  # by whether it loops, and whether it decides
    (False, False): MoAState,
    (False, True): DecidedState,
    (True, False): DraftedState,
    (True, True): DraftedDecidedState,
}


def create_moa(
    proposers: Sequence[ProposerLike] | Sequence[Sequence[ProposerLike]],
    aggregator: ModelLike | AnswerStrategy,
    *,
    layers: int | None = None,
    select: Selection | Sequence[Selection] | None = None,
    until: Until | None = None,
    route: Route | None = None,
    staircase: Staircase | None = None,
    chunkwise: Chunkwise | None = None,
    fenced: bool = False,
    aggregation_prompt: str = AGGREGATE_AND_SYNTHESIZE,
    min_proposals: int = 1,
    stream_proposals: bool = False,
    quorum: Quorum | int | None = None,
    hedge: Hedge | None = None,
    layer_timeout: float | None = None,
    run_timeout: float | None = None,
    max_retries: int | None = None,
    max_concurrent_calls: Mapping[str, int] | CallLimits | None = None,
    budget: Budget | None = None,
    context_window: int | None = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    name: str = "moa",
    retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
    cache_policy: CachePolicy[Any] | None = None,
    context_schema: type[MoAContext] = MoAContext,
) -> MoAGraph:
    """Build a Mixture-of-Agents (arXiv 2406.04692, section 2) as a compiled LangGraph graph.

    Args:
        proposers: The models that answer in parallel. A flat list serves every layer; a list of
            lists gives each layer its own. A model is `"provider:model"`, a chat model, a
            Runnable from messages to a message, or a `Proposer` with a name, a role or samples.
        aggregator: The model that synthesizes the answer from the last layer's proposals, or
            another way to an answer from `moa_graph.strategies`, such as `Rank` or `Vote`.
        layers: How many layers, the aggregator's included, as the paper counts: 2 (default) is
            one layer of proposers and the aggregator, 3 is the paper's MoA. With a list of
            lists it follows from the list.
        select: What of each layer goes on to the next: one selection, or several in their order.
        until: When no further layer is needed; drawn as a conditional edge.
        route: A cheap first pass, which answers alone when it is sure.
        staircase: Lets each layer, and the aggregator, begin on the first chunks of the layer
            before: the first token comes early.
        chunkwise: Lets the proposers write chunk by chunk, each from the aggregated text.
        fenced: Whether references are shown as untrusted, between delimiters that no proposer can
            know. By default they are shown as in the paper.
        aggregation_prompt: What later layers and the aggregator are told to do with the
            proposals, which follow it as a numbered list. By default the paper's, word for word.
        min_proposals: How many usable proposals each layer must give (at least 1).
        stream_proposals: Whether `stream_mode="messages"` yields the proposers' tokens too, told
            apart by `metadata["moa_layer"]` and `metadata["moa_proposer"]`.
        quorum: How many usable proposals complete a layer, a number or a `Quorum` with a grace;
            at least `min_proposals`. The proposers that are late are cancelled (`"abandoned"`).
        hedge: When to ask a proposer that is late a second time.
        layer_timeout: Seconds that each layer of proposers may take; then those that have not
            answered are cancelled (`"timed_out"`).
        run_timeout: Seconds that the whole run may take. Each layer may use an equal share of
            what is left, so that the aggregator has its own; layers that were late are made up
            for with what there is. An aggregator that is late fails the run.
        max_retries: How often a call is repeated after an error that can pass: rate limits (as
            late as Retry-After asks, up to a minute), 408, 5xx, and lost connections. By default
            as often as the model's own client would (its `max_retries`), at least twice. 0 turns
            it off. Repetitions by the client itself are taken over where it can be told so
            (OpenAI's family), and never multiplied.
        max_concurrent_calls: The most calls in flight by provider (`{"ollama": 2}`) or model
            (`{"ollama:llama3.2": 1}`), over all runs of this graph; a `CallLimits` is shared by
            several graphs.
        budget: The most that a run may spend on proposals, in tokens or dollars.
        context_window: Tokens that every model takes, its answer included. By default what
            LangChain's profile of the model says (`model.profile`), if anything. References that
            do not fit are trimmed, each to a fair share, and the record says so.
        checkpointer: Keeps threads: follow-up turns, and resuming after a failure.
        store: LangGraph's long-term store, for the nodes inside agents given as models.
        cache: Where proposals are kept, so that they are paid for once: any of LangGraph's
            caches (in memory, SQLite, Redis).
        name: The graph's name, which is also its root run's in LangSmith.
        retry_policy: LangGraph's retry policy, for proposers and the aggregator: their nodes are
            run again. It replaces the default of `max_retries`.
        cache_policy: LangGraph's cache policy, for how long `cache` keeps proposals (by default
            without end). Its default key is replaced by one of the model, its parameters (those
            of the run's `MoAContext` included), the text of what it is asked, and the number of
            the sample. Failed proposals are not kept.
        context_schema: `MoAContext`, or a subclass with settings of your own beside it.

    Returns:
        A graph from `{"messages": …}` to `{"messages": …, "proposals": …}`: the answer is the
        last message, the `Proposal`s of every layer are beside it. Its `builder` is the
        `StateGraph`. Per run it takes a `MoAContext`.

    Raises:
        TypeError: If an argument is of the wrong kind; names the argument and the fix.
        ValueError: If there is no proposer, the layers contradict the list, names collide, a
            model's provider is unknown or not installed, a number is out of range, or there is
            nothing that an option could act on.

    A run raises `NotEnoughProposals` or `AggregationFailed`, which carry the proposals, and
    `ValueError` for a conversation without a question, before any model is called.

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
    built = layers_of(proposers, layers)
    selections = as_selections(select)
    answer = aggregator if isinstance(aggregator, AnswerStrategy) else None
    check_kinds(until=until, route=route, staircase=staircase, chunkwise=chunkwise)
    check_combination(
        proposer_layers=len(built),
        select=selections,
        until=until,
        answer=answer,
        fenced=fenced,
        staircase=staircase,
        chunkwise=chunkwise,
        hedge=hedge,
        cache=cache is not None,
    )
    tree = next((s for s in selections if isinstance(s, Tree)), None)
    for selection in selections:
        selection.check([len(layer) for layer in built])
    built = tree.applied(built) if tree else built
    deciding = len(built)
    if answer and (seats := answer.seats(len(built[-1]))):
        built = [*built, seats]
    narrowest = min(len(layer) for layer in built)
    minimum = checked_minimum(min_proposals, narrowest)
    if isinstance(aggregator, AnswerStrategy):
        final: AnswerStrategy | Model = aggregator
        others = list(aggregator.models)
    else:
        final = as_model(aggregator, "aggregator")
        others = [final]
        if staircase or chunkwise:
            check_writers([seat for layer in built for seat in layer], final, staircase)

    models = [seat.model for layer in built for seat in layer]
    others += [m for strategy in (*selections, until, route) if strategy for m in strategy.models]
    plan = Plan(
        widths=[len(layer) for layer in built],
        models=[*models, *others],
        aggregation_prompt=checked_text("aggregation_prompt", aggregation_prompt),
        min_proposals=minimum,
        stream_proposals=stream_proposals,
        # Sync runs use a thread for each proposer and one for the stream, however few the cores.
        concurrency=(sum if staircase else max)(len(layer) for layer in built) + 2,
        retry_policies=as_policies(retry_policy),
        max_retries=checked_count("max_retries", max_retries, least=0),
        quorum=checked_quorum(quorum, minimum, narrowest),
        hedge=checked_hedge(hedge, models),
        layer_timeout=checked_timeout("layer_timeout", layer_timeout),
        run_timeout=checked_timeout("run_timeout", run_timeout),
        budget=checked_budget(budget, [*models, *others]),
        limits=checked_limits(max_concurrent_calls, [*models, *others]),
        context_window=checked_count("context_window", context_window, least=1),
        fenced=fenced,
        lettered=any(isinstance(s, Shuffle) and s.letters for s in selections),
        overlaps=staircase is not None,
        routed=route is not None,
        cache=ProposalCache(cache, cache_policy or CachePolicy()) if cache else None,
        recipe=(create_moa, arguments),
    )
    if cache is not None:
        _tell_what_is_not_cached([seat for layer in built for seat in layer])
    schema = context_schema_of(
        context_schema,
        proposers=[
            seat.node_name(number) for number, layer in enumerate(built, 1) for seat in layer
        ],
        layers=plan.layers,
        quorum=narrowest,
    )
    decides = bool(answer or until or route or [s for s in selections if s is not tree])
    pieces = staircase or chunkwise
    loops = pieces or (answer and answer.comes_back)
    builder = StateGraph(
        _STATES[bool(loops), decides],
        schema,
        input_schema=MessagesState,
        output_schema=DecidedState if decides else MoAState,
    )
    stages = _stages(
        plan,
        built,
        final,
        deciding=deciding,
        selections=selections,
        until=until,
        route=route,
        pieces=pieces,
    )
    wire(builder, stages, for_nodes(plan.retry_policies), loop=chunkwise is not None)

    compiled = builder.compile(checkpointer=checkpointer, store=store, cache=plan.cache, name=name)
    graph = as_graph(LoopingGraph if loops else MoAGraph, compiled)
    for node in (node for stage in stages for node in stage.nodes if node.tags):
        tag_node(graph, node.name, node.tags)
    return graph.with_config(max_concurrency=plan.concurrency)


def _tell_what_is_not_cached(seats: Sequence[Seat]) -> None:
    """Log which proposers a cache will always ask, and why."""
    reasons = {
        seat.name: why
        for seat in seats
        if seat.cache_key is None and seat.model.built and (why := why_not_cached(seat.model.built))
    }
    if reasons:
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        logger.warning(
            "These proposers are not cached, as nothing tells their model from another one: %s. "
            "Give Proposer(model, cache_key=…), and change the key whenever the model's answers "
            "may change.",
            listed,
        )


def _stages(
    plan: Plan,
    layers: Sequence[Sequence[Seat]],
    answer: Model | AnswerStrategy,
    *,
    deciding: int,
    selections: Sequence[Selection],
    until: Until | None,
    route: Route | None,
    pieces: Staircase | Chunkwise | None,
) -> list[Stage]:
    """The graph from top to bottom; behind the first `deciding` layers, something is decided."""
    tree = next((s for s in selections if isinstance(s, Tree)), None)
    selecting = [s for s in selections if s is not tree]
    again = unfinished if isinstance(pieces, Staircase) else None
    analysis = answer.before(plan) if isinstance(answer, AnswerStrategy) else None
    answering = analysis.step_name if analysis else AGGREGATOR

    stages = [Stage([Node(FIRST_PASS, RouteNode(plan, route))], {"alone": END})] if route else []
    nodes: list[list[ProposerNode]] = []
    for number, layer in enumerate(layers, 1):
        before = [(node.node, node.proposer) for node in nodes[-1]] if nodes else []
        nodes.append(
            [_proposer(plan, number, i, seat, before, pieces) for i, seat in enumerate(layer)]
        )
        direct = tree is not None and 1 < number <= deciding and not (selecting or until)
        edges = [
            [before[i][0] for i in tree.places(reader, len(before))] if tree and direct else None
            for reader in range(len(layer))
        ]
        stages.append(
            Stage(
                [_described(n, after) for n, after in zip(nodes[-1], edges, strict=True)],
                again=again,
            )
        )
        if number > deciding:
            continue
        if selecting:
            selection = SelectNode(plan, number, selecting)
            stages.append(Stage([Node(selection.step_name, selection)]))
        if until and (number < len(layers) or until.then == "answer"):
            exits = {"answer": END} if until.then == "answer" else {"exit": answering}
            condition = UntilNode(plan, number, until)
            stages.append(Stage([Node(condition.step_name, condition)], exits))
    if analysis:
        stages.append(Stage([Node(analysis.step_name, analysis)]))
    last = Node(
        AGGREGATOR,
        _answer(plan, answer, nodes, pieces),
        {"moa_layer": plan.layers},
        [f"moa:layer:{plan.layers}", "moa:aggregator"],
    )
    comes_back = isinstance(answer, AnswerStrategy) and answer.comes_back
    stages.append(Stage([last], again=unfinished if comes_back else again))
    return stages


def _proposer(
    plan: Plan,
    layer: int,
    position: int,
    seat: Seat,
    before: Sequence[tuple[str, str]],
    pieces: Staircase | Chunkwise | None,
) -> ProposerNode:
    place: dict[str, Any] = {
        "layer": layer,
        "position": position,
        "proposer": seat.name,
        "node": seat.node_name(layer),
        "model": seat.model,
        "prompt": seat.prompt,
        "sample": seat.sample,
        "timeout": seat.timeout,
        "reads": seat.reads,
        "cache_key": seat.cache_key,
    }
    if isinstance(pieces, Chunkwise):
        return ChunkProposer(plan, pieces, before, **place)
    if isinstance(pieces, Staircase):
        if layer == 1:
            return StaircaseProposer(plan, pieces, **place)
        return StaircaseReader(plan, pieces, before, **place)
    return ProposerNode(plan, **place)


def _answer(
    plan: Plan,
    answer: Model | AnswerStrategy,
    nodes: Sequence[Sequence[ProposerNode]],
    pieces: Staircase | Chunkwise | None,
) -> AnswerNode:
    if isinstance(answer, AnswerStrategy):
        return answer.node(plan)
    if isinstance(pieces, Chunkwise):
        return ChunkAggregator(plan, answer, pieces, nodes)
    if isinstance(pieces, Staircase):
        return StaircaseAggregator(plan, answer, pieces, nodes)
    return AggregatorNode(plan, answer)


def _described(node: ProposerNode, after: Sequence[str] | None) -> Node:
    return Node(
        node.node,
        node,
        {"moa_layer": node.layer, "moa_proposer": node.proposer},
        [f"moa:layer:{node.layer}", f"moa:proposer:{node.proposer}"],
        after,
    )
