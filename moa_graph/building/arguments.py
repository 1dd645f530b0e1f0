"""Checks of `create_moa`'s arguments, before the graph is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache
from langgraph.store.base import BaseStore

from moa_graph.calling.budget import price_of
from moa_graph.calling.cache import ProposalCache
from moa_graph.context import MoAContext
from moa_graph.errors import check_names, nearest
from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.models import (
    Model,
    chat_models_in,
    name_of_chat_model,
    nested_graph,
    provider_of,
)


def as_object(argument: str, value: Any, kind: type[Any]) -> Any:
    """Return a value object, built from a mapping of its arguments if needed; None stays None.

    Raises:
        TypeError: If `value` has another type. The error names the argument and the type.
    """
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        check_names(kind, value)
        return kind(**value)
    example = {RunLimits: "RunLimits(timeout=60)", CallPolicy: "CallPolicy(retries=3)"}
    raise TypeError(
        f"create_moa({argument}={value!r}) must be a {kind.__name__}, such as "
        f"{example.get(kind, 'References(fenced=True)')}."
    )


def check_aggregator(aggregator: Any) -> None:
    """Reject a `Proposer` as the aggregator.

    Raises:
        TypeError: If it is one.
    """
    if isinstance(aggregator, Proposer):
        raise TypeError(
            f"create_moa(aggregator={aggregator!r}) must be a model: give the model of this "
            "Proposer. Its settings are those of a run: MoAContext(aggregator_temperature=…, "
            "aggregator_max_tokens=…, aggregation_prompt=…)."
        )


def as_references(value: Any) -> References:
    """Return `create_moa`'s `References`: the given ones or the default."""
    references: References | None = as_object("references", value, References)
    return references or References()


def as_cache(value: Any) -> ProposalCache | None:
    """Return `create_moa`'s cache as a `ProposalCache`.

    Raises:
        TypeError: If `value` is not a cache.
    """
    if value is None or isinstance(value, ProposalCache):
        return value
    if not isinstance(value, BaseCache):
        raise TypeError(
            f"create_moa(cache={value!r}) must be a LangGraph cache, such as InMemoryCache(), or "
            "ProposalCache(cache, ttl=…)."
        )
    return ProposalCache(value)


def check_hedges(layers: Sequence[Layer], models: Sequence[Sequence[Model]]) -> None:
    """Reject `hedge` on a layer without a proposer that can be called twice.

    Raises:
        ValueError: If all proposers of such a layer are graphs.
    """
    for layer, own in zip(layers, models, strict=True):
        graphs = [model.built is not None and nested_graph(model.built) for model in own]
        if layer.hedge is not None and all(graphs):
            raise ValueError(
                "Layer(hedge=…) needs a chat model, but all proposers of the layer are graphs, "
                "which are not called twice: they may have side effects. Remove hedge, or add a "
                "chat model."
            )


def check_prices(limits: RunLimits | None, models: Iterable[Model]) -> None:
    """Reject a budget in dollars if the price of a model is unknown.

    Raises:
        ValueError: If a price is unknown. The error names the model and how to set its price.
    """
    if limits is None or limits.usd is None:
        return
    for model in models:
        price_of(limits, model.name, model.provider)
        for one in chat_models_in(model.built) if model.built is not None else ():
            price_of(limits, name_of_chat_model(one), provider_of(one))


def check_concurrent(calls: CallPolicy, models: Sequence[Model]) -> None:
    """Reject concurrency limits for models or providers that are not in this graph.

    Raises:
        ValueError: If a name is unknown. The error lists the known names.
    """
    known = {name for model in models for name in model.names}
    if any(model.provider is None for model in models):
        return  # an agent or a function: its inner models are unknown
    for name in calls.concurrent:
        # A policy shared by several graphs may name models of another graph.
        alien = known.isdisjoint(calls.concurrent)
        if name not in known and (alien or nearest(name, known, 0.8)):
            raise ValueError(
                f"CallPolicy(concurrent=…) names {name!r}, but this graph has: "
                f"{', '.join(map(repr, sorted(known)))}.{nearest(name, known)}"
            )


def check_types(**arguments: tuple[Any, type]) -> None:
    """Reject arguments of `create_moa` with a wrong type.

    Raises:
        TypeError: If an argument has the wrong type. The error names the first one.
    """
    kinds = {str: "a string", bool: "True or False"}
    for argument, (value, kind) in arguments.items():
        if not isinstance(value, kind):
            raise TypeError(f"create_moa({argument}={value!r}) must be {kinds[kind]}.")


def check_langgraphs(context_schema: Any, store: Any) -> None:
    """Reject arguments that LangGraph would accept but that would fail in a run.

    Raises:
        TypeError: If one is invalid. The error names the argument and the expected type.
    """
    if not (isinstance(context_schema, type) and issubclass(context_schema, MoAContext)):
        raise TypeError(
            f"create_moa(context_schema={context_schema!r}) must be MoAContext, or a subclass."
        )
    if not isinstance(store, BaseStore | None):
        raise TypeError(
            f"create_moa(store={store!r}) must be a LangGraph store, such as InMemoryStore()."
        )
