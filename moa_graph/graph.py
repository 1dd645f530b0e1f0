"""The shape of a Mixture-of-Agents: layers of parallel proposers, then one aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph.cache.base import BaseCache
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from langgraph.types import CachePolicy, Checkpointer, RetryPolicy

from moa_graph.caching import UsableOnly, for_proposer
from moa_graph.context import MoAContext
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes import AggregatorNode, Plan, ProposerNode
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_graph.retries import for_nodes
from moa_graph.state import MoAState

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
            `samples=6` of one good model is Self-MoA (arXiv 2502.00674).

    Raises:
        TypeError: If `samples` is no integer, or `name` or `prompt` no text.
        ValueError: If `samples` is below 1, or the name cannot be a node's.

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

    def __init__(
        self,
        model: ModelLike,
        *,
        name: str | None = None,
        prompt: str | None = None,
        samples: int = 1,
    ) -> None:
        for argument, value in (("name", name), ("prompt", prompt)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"Proposer({argument}=…) must be a text, not {value!r}.")
        if isinstance(samples, bool) or not isinstance(samples, int):
            raise TypeError(f"Proposer(samples={samples!r}) must be a whole number, such as 6.")
        if samples < 1:
            raise ValueError(f"Proposer(samples={samples}) must be at least 1.")
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
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
    cache: BaseCache[Any] | None = None,
    name: str = "moa",
    retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
    cache_policy: CachePolicy[Any] | None = None,
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
        checkpointer: Keeps threads: follow-up turns, and resuming after a failure.
        store: LangGraph's long-term store, for the nodes inside agents given as models.
        cache: Where `cache_policy` keeps proposals.
        name: The graph's name, which is also its root run's in LangSmith.
        retry_policy: LangGraph's retry policy, for proposers and the aggregator. By default a
            failed call is not repeated here: the providers' own clients retry what can pass.
        cache_policy: LangGraph's cache policy, for proposers. Its default key is replaced by one
            of the model, its parameters, the conversation's text and the references, so that
            the same question hits. Failed proposals are not kept; what a `MoAContext` changes
            is not told apart.

    Returns:
        A graph from `{"messages": …}` to `{"messages": …, "proposals": …}`: the answer is the
        last message, the `Proposal`s of every layer are beside it. Its `builder` is the
        `StateGraph`. Per run it takes a `MoAContext`.

    Raises:
        TypeError: If an argument is of the wrong kind; names the argument and the fix.
        ValueError: If there is no proposer, the layers contradict the list, names collide, or a
            model's provider is unknown or not installed.

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
    plan = Plan(
        layers=len(built) + 1,
        models=[
            *(seat.model for layer in built for seat in layer),
            last := as_model(aggregator, "aggregator"),
        ],
        aggregation_prompt=_checked_text("aggregation_prompt", aggregation_prompt),
        min_proposals=_checked_minimum(min_proposals, built),
        stream_proposals=stream_proposals,
        # Sync runs use a thread for each proposer and one for the stream, however few the cores.
        concurrency=max(len(layer) for layer in built) + 1,
        retries=_as_policies(retry_policy),
    )
    retries = for_nodes(plan.retries)

    builder = StateGraph(MoAState, MoAContext, input_schema=MessagesState)
    before = [START]
    for number, layer in enumerate(built, start=1):
        for position, seat in enumerate(layer):
            node = ProposerNode(
                plan,
                layer=number,
                position=position,
                proposer=seat.name,
                model=seat.model,
                prompt=seat.prompt,
            )
            builder.add_node(
                seat.node_name(number),
                node,
                metadata={"moa_layer": number, "moa_proposer": seat.name},
                retry_policy=retries,
                cache_policy=for_proposer(cache_policy, seat.model, seat.prompt, number),
            )
            for start in before:
                builder.add_edge(start, seat.node_name(number))
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

    graph = builder.compile(
        checkpointer=checkpointer,
        store=store,
        cache=UsableOnly(cache) if cache else None,
        name=name,
    )
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
    for entry, model in zip(entries, models, strict=True):
        base = entry.name or _unused(_short(model.name), taken, entry.samples)
        for name in _sample_names(base, entry.samples):
            yield _Seat(name, model, entry.prompt)


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


def _checked_minimum(min_proposals: int, layers: list[list[_Seat]]) -> int:
    if isinstance(min_proposals, bool) or not isinstance(min_proposals, int):
        raise TypeError(f"min_proposals={min_proposals!r} must be a whole number, such as 1.")
    narrowest = min(len(layer) for layer in layers)
    if not 1 <= min_proposals <= narrowest:
        raise ValueError(
            f"min_proposals={min_proposals} must be between 1 and {narrowest}, the number of "
            "proposers in the smallest layer."
        )
    return min_proposals


def _as_policies(policy: RetryPolicy | Sequence[RetryPolicy] | None) -> Sequence[RetryPolicy]:
    if policy is None:
        return ()
    return (policy,) if isinstance(policy, RetryPolicy) else tuple(policy)
