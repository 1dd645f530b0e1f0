"""The shape of a Mixture-of-Agents: layers of parallel proposers, then one aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.cache.base import BaseCache
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import CachePolicy, Checkpointer, RetryPolicy

from moa_graph.budget import Budget
from moa_graph.caching import ProposalCache
from moa_graph.completion import Hedge, Quorum, check_seconds
from moa_graph.context import MoAContext, context_schema_of
from moa_graph.limits import CallLimits
from moa_graph.models import Model, ModelLike, as_model, nested_graph
from moa_graph.nodes import AggregatorNode, ProposerNode
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_graph.retries import for_nodes
from moa_graph.state import MoAState
from moa_graph.steps import Plan

AGGREGATOR = "aggregator"
"""The name of the aggregator's node."""

_FEWEST_LAYERS = 2  # one of proposers, and the aggregator
_RESERVED = (":", "|")  # LangGraph's separators in checkpoint namespaces

MoAGraph: TypeAlias = CompiledStateGraph[MoAState, MoAContext, Any, MoAState]
"""A compiled Mixture-of-Agents: a Runnable like every LangGraph graph."""


@dataclass(frozen=True, init=False)
class Proposer:
    """A model that proposes answers, and how it does.

    Args:
        model: `"provider:model"`, a chat model, or any Runnable from messages to a message,
            such as an agent compiled by LangGraph.
        name: What it is called in traces, in Studio and in its proposals; unique within its
            layer. By default made from the model's name.
        prompt: A role or persona, added to the system message of this proposer's calls only.
        samples: How many answers to draw from it, each a proposer of its own (at least 1).
            `samples=6` of one good model is Self-MoA (arXiv 2502.00674). They do not answer from
            LangChain's LLM cache, in which they would all be the same.
        timeout: Seconds that it may take, repeated calls included (above 0). Then its request is
            cancelled, and its proposal is `"timed_out"`.

    Raises:
        TypeError: If `samples` or `timeout` is no number, or `name` or `prompt` no text.
        ValueError: If `samples` is below 1, `timeout` not above 0, or the name cannot be a
            node's.

    Example:
        ```python
        create_moa(
            [
                Proposer("together:openai/gpt-oss-120b", samples=3),
                Proposer("together:zai-org/GLM-5.2", name="critic", prompt="Look for errors."),
            ],
            "together:deepseek-ai/DeepSeek-V4-Pro",
        )
        ```
    """

    model: ModelLike
    name: str | None
    prompt: str | None
    samples: int
    timeout: float | None

    def __init__(
        self,
        model: ModelLike,
        *,
        name: str | None = None,
        prompt: str | None = None,
        samples: int = 1,
        timeout: float | None = None,
    ) -> None:
        for argument, value in (("name", name), ("prompt", prompt)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"Proposer({argument}=…) must be a text, not {value!r}.")
        if isinstance(samples, bool) or not isinstance(samples, int):
            raise TypeError(f"Proposer(samples={samples!r}) must be a whole number, such as 6.")
        if samples < 1:
            raise ValueError(f"Proposer(samples={samples}) must be at least 1.")
        if timeout is not None:
            check_seconds("Proposer(timeout=…)", timeout)
        if name is not None and (
            not name.strip() or not name.isprintable() or any(c in name for c in _RESERVED)
        ):
            raise ValueError(
                f"Proposer(name={name!r}) cannot name a node: it must not be blank, nor contain "
                "':', '|' or a line break."
            )
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "timeout", timeout)

    def __repr__(self) -> str:
        # A model object may hold more than should be printed.
        model = self.model if isinstance(self.model, str) else type(self.model).__name__
        return f"Proposer({model!r}, name={self.name!r}, samples={self.samples})"


ProposerLike: TypeAlias = ModelLike | Proposer


def create_moa(
    proposers: Sequence[ProposerLike] | Sequence[Sequence[ProposerLike]],
    aggregator: ModelLike,
    *,
    layers: int | None = None,
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
        aggregator: The model that synthesizes the answer from the last layer's proposals.
        layers: How many layers, the aggregator's included, as the paper counts: 2 (default) is
            one layer of proposers and the aggregator, 3 is the paper's MoA. With a list of
            lists it follows from the list.
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
    built = _layers_of(proposers, layers)
    narrowest = min(len(layer) for layer in built)
    minimum = _checked_minimum(min_proposals, narrowest)
    models = [seat.model for layer in built for seat in layer]
    models.append(last := as_model(aggregator, "aggregator"))
    plan = Plan(
        widths=[len(layer) for layer in built],
        models=models,
        aggregation_prompt=_checked_text("aggregation_prompt", aggregation_prompt),
        min_proposals=minimum,
        stream_proposals=stream_proposals,
        # Sync runs use a thread for each proposer and one for the stream, however few the cores.
        concurrency=max(len(layer) for layer in built) + 1,
        retry_policies=_as_policies(retry_policy),
        max_retries=_checked_count("max_retries", max_retries, least=0),
        quorum=_checked_quorum(quorum, minimum, narrowest),
        hedge=_checked_hedge(hedge, models[:-1]),
        layer_timeout=_checked_timeout("layer_timeout", layer_timeout),
        run_timeout=_checked_timeout("run_timeout", run_timeout),
        budget=_checked_budget(budget, models),
        limits=_checked_limits(max_concurrent_calls, models),
        context_window=_checked_count("context_window", context_window, least=1),
        cache=ProposalCache(cache, cache_policy or CachePolicy()) if cache else None,
    )
    retries = for_nodes(plan.retry_policies)

    schema = context_schema_of(
        context_schema,
        proposers=[
            seat.node_name(number) for number, layer in enumerate(built, 1) for seat in layer
        ],
        layers=plan.layers,
        quorum=narrowest,
    )
    builder = StateGraph(MoAState, schema, input_schema=MessagesState)
    before = [START]
    for number, layer in enumerate(built, start=1):
        for position, seat in enumerate(layer):
            node = ProposerNode(
                plan,
                layer=number,
                position=position,
                proposer=seat.name,
                node=seat.node_name(number),
                model=seat.model,
                prompt=seat.prompt,
                sample=seat.sample,
                timeout=seat.timeout,
            )
            builder.add_node(
                node.node,
                node,
                metadata={"moa_layer": number, "moa_proposer": seat.name},
                retry_policy=retries,
            )
            for start in before:
                builder.add_edge(start, node.node)
        before = [seat.node_name(number) for seat in layer]
    builder.add_node(
        AGGREGATOR,
        AggregatorNode(plan, last),
        metadata={"moa_layer": plan.layers},
        retry_policy=retries,
    )
    for start in before:
        builder.add_edge(start, AGGREGATOR)
    builder.add_edge(AGGREGATOR, END)

    graph = builder.compile(checkpointer=checkpointer, store=store, cache=plan.cache, name=name)
    for number, layer in enumerate(built, start=1):
        for seat in layer:
            tags = [f"moa:layer:{number}", f"moa:proposer:{seat.name}"]
            graph.nodes[seat.node_name(number)].tags = tags
    graph.nodes[AGGREGATOR].tags = [f"moa:layer:{plan.layers}", "moa:aggregator"]
    return graph.with_config(max_concurrency=plan.concurrency)


@dataclass(frozen=True)
class _Seat:
    """One proposer's place in a layer."""

    name: str
    model: Model
    prompt: str | None
    sample: int
    """How many earlier ones of its layer have the same model and role."""
    timeout: float | None

    def node_name(self, layer: int) -> str:
        return f"layer_{layer}_{self.name}"


def _layers_of(
    proposers: Sequence[ProposerLike] | Sequence[Sequence[ProposerLike]], layers: int | None
) -> list[list[_Seat]]:
    if isinstance(proposers, str) or not isinstance(proposers, Sequence):
        raise TypeError(
            "proposers must be a list of models (or a list of lists, one a layer), not "
            f"{type(proposers).__name__}. For one model write proposers=[model]."
        )
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int)):
        raise TypeError(
            f"layers={layers!r} must be a whole number: 2 is one layer of proposers and the "
            "aggregator, 3 is the paper's MoA."
        )
    if layers is not None and layers < _FEWEST_LAYERS:
        raise ValueError(
            f"layers={layers} must be at least 2: it counts the aggregator's layer, so 2 is one "
            "layer of proposers and the aggregator."
        )
    if not proposers:
        raise ValueError("proposers is empty: give at least one model.")
    nested = [_is_layer(entry) for entry in proposers]
    if any(nested) and not all(nested):
        raise TypeError(
            "proposers mixes models and lists: give either one flat list for every layer, or "
            "one list a layer."
        )
    if not any(nested):
        layer = list(_seats(proposers, "proposers"))  # type: ignore[arg-type]
        return [layer] * ((layers or _FEWEST_LAYERS) - 1)
    if layers is not None and layers != len(proposers) + 1:
        raise ValueError(
            f"layers={layers} contradicts proposers, which has {len(proposers)} lists: with the "
            f"aggregator that makes {len(proposers) + 1} layers. Leave layers out, or give "
            f"{layers - 1} lists."
        )
    return [
        list(_seats(layer, f"proposers[{i}]"))  # type: ignore[arg-type]
        for i, layer in enumerate(proposers)
    ]


def _is_layer(entry: object) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str)


def _seats(layer: Sequence[ProposerLike], where: str) -> Iterator[_Seat]:
    if not layer:
        raise ValueError(f"{where} is empty: every layer needs at least one proposer.")
    entries = [entry if isinstance(entry, Proposer) else Proposer(entry) for entry in layer]
    models = [as_model(entry.model, f"{where}[{i}]") for i, entry in enumerate(entries)]
    taken = Counter(
        name for entry in entries if entry.name for name in _sample_names(entry.name, entry.samples)
    )
    for name, times in taken.items():
        if times > 1:
            raise ValueError(
                f"{where} has {times} proposers named {name!r}: names must be unique within a "
                "layer."
            )
    drawn: Counter[tuple[str, str | None]] = Counter()
    for entry, model in zip(entries, models, strict=True):
        base = entry.name or _unused(_short(model.name), taken, entry.samples)
        for name in _sample_names(base, entry.samples):
            sample = drawn[model.name, entry.prompt]
            drawn[model.name, entry.prompt] += 1
            yield _Seat(name, model, entry.prompt, sample, entry.timeout)


def _sample_names(name: str, samples: int) -> list[str]:
    return [name] if samples == 1 else [f"{name}_{i}" for i in range(1, samples + 1)]


def _unused(name: str, taken: Counter[str], samples: int) -> str:
    """The name, numbered where it or one of its samples is taken; then taken itself."""
    candidate, number = name, 1
    while any(n in taken for n in _sample_names(candidate, samples)):
        number += 1
        candidate = f"{name}_{number}"
    taken.update(_sample_names(candidate, samples))
    return candidate


def _short(model_name: str) -> str:
    short = model_name.rstrip("/").rpartition("/")[2] or "model"
    for character in _RESERVED:
        short = short.replace(character, "-")
    return short


def _checked_text(argument: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a text, not {type(value).__name__}.")
    if not value.strip():
        raise ValueError(f"{argument} is blank: leave it out for the paper's prompt.")
    return value


def _checked_minimum(min_proposals: int, narrowest: int) -> int:
    if isinstance(min_proposals, bool) or not isinstance(min_proposals, int):
        raise TypeError(f"min_proposals={min_proposals!r} must be a whole number, such as 1.")
    if not 1 <= min_proposals <= narrowest:
        raise ValueError(
            f"min_proposals={min_proposals} must be between 1 and {narrowest}, the number of "
            "proposers in the smallest layer."
        )
    return min_proposals


def _checked_quorum(quorum: Quorum | int | None, minimum: int, narrowest: int) -> Quorum | None:
    if quorum is None:
        return None
    quorum = quorum if isinstance(quorum, Quorum) else Quorum(quorum)
    if not minimum <= quorum.proposals <= narrowest:
        raise ValueError(
            f"quorum={quorum.proposals} must be between {minimum} (min_proposals) and "
            f"{narrowest}, the number of proposers in the smallest layer."
        )
    return quorum


def _checked_hedge(hedge: Hedge | None, models: Sequence[Model]) -> Hedge | None:
    if hedge is None:
        return None
    if not isinstance(hedge, Hedge):
        raise TypeError(f"hedge={hedge!r} must be a Hedge, such as Hedge(after=5).")
    if all(model.built is not None and nested_graph(model.built) for model in models):
        raise ValueError(
            "hedge has no proposer that can be asked twice: all of them are graphs, and what an "
            "agent does may have effects. Leave hedge out, or give a chat model too."
        )
    return hedge


def _checked_timeout(argument: str, seconds: float | None) -> float | None:
    if seconds is not None:
        check_seconds(argument, seconds)
    return seconds


def _checked_count(argument: str, value: int | None, *, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument}={value!r} must be a whole number.")
    if value < least:
        raise ValueError(f"{argument}={value} must be at least {least}.")
    return value


def _checked_budget(budget: Budget | None, models: Sequence[Model]) -> Budget | None:
    if budget is None:
        return None
    if not isinstance(budget, Budget):
        raise TypeError(f"budget={budget!r} must be a Budget, such as Budget(tokens=20_000).")
    if budget.usd is not None:
        for model in models:
            budget.price_of(model.name, model.provider)
    return budget


def _checked_limits(
    limits: Mapping[str, int] | CallLimits | None, models: Sequence[Model]
) -> CallLimits:
    if isinstance(limits, CallLimits):
        return limits  # it may be for other graphs too
    limits = CallLimits(limits or {})
    known = {name for model in models for name in model.names}
    if unknown := sorted(limits.names - known):
        raise ValueError(
            f"max_concurrent_calls names {', '.join(map(repr, unknown))}, but this graph has: "
            f"{', '.join(map(repr, sorted(known)))}."
        )
    return limits


def _as_policies(policy: RetryPolicy | Sequence[RetryPolicy] | None) -> Sequence[RetryPolicy]:
    if policy is None:
        return ()
    return (policy,) if isinstance(policy, RetryPolicy) else tuple(policy)
