"""Which proposals LangGraph's node cache may answer with, and which it may keep.

LangGraph's default key is made from the whole input, in which message ids differ from run to run;
and it keeps whatever a node returns, also the record of a failure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.types import CachePolicy

from moa_graph.models import Model, chat_models_in
from moa_graph.state import MoAState, proposals_of_layer, turn_of, usable


def for_proposer(
    policy: CachePolicy[Any] | None, model: Model, prompt: str | None, layer: int
) -> CachePolicy[Any] | None:
    """The policy with a key that says which model is asked what.

    The key has the model with its parameters, the role, the conversation's text, the references
    and the turn; with a `key_func` of the user's own, that in place of the conversation and the
    references. What a run's `MoAContext` changes is not in it: LangGraph makes the key before
    the node knows its context.
    """
    if policy is None:
        return None
    default = policy.key_func is CachePolicy().key_func
    asked = _asked(layer) if default else policy.key_func

    def key(state: MoAState) -> str:
        # Built by now, or the run is about to say why it cannot be.
        built = model.built
        known = [m.asdict() for m in chat_models_in(built)] if built else []
        parts = [model.name, known, prompt, turn_of(state["proposals"]), asked(state)]
        return json.dumps(parts, sort_keys=True, default=str)

    return replace(policy, key_func=key)


def _asked(layer: int) -> Callable[[MoAState], list[Any]]:
    def asked(state: MoAState) -> list[Any]:
        messages = [
            [m.type, m.content, m.name, getattr(m, "tool_calls", None)] for m in state["messages"]
        ]
        before = usable(proposals_of_layer(state["proposals"], layer - 1)) if layer > 1 else []
        return [messages, [p["content"] for p in before]]

    return asked


class UsableOnly(BaseCache[Any]):
    """A cache that keeps no failed proposal: the next run asks again.

    Args:
        cache: Where everything else is kept.
    """

    def __init__(self, cache: BaseCache[Any]) -> None:
        super().__init__(serde=cache.serde)
        self._cache = cache

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """As the cache."""
        return self._cache.get(keys)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """As the cache."""
        return await self._cache.aget(keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """As the cache, without the failed."""
        self._cache.set(_without_failed(pairs))

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """As the cache, without the failed."""
        await self._cache.aset(_without_failed(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As the cache."""
        self._cache.clear(namespaces)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As the cache."""
        await self._cache.aclear(namespaces)


def _without_failed(
    pairs: Mapping[FullKey, tuple[Any, int | None]],
) -> dict[FullKey, tuple[Any, int | None]]:
    return {
        key: (writes, ttl)
        for key, (writes, ttl) in pairs.items()
        if all(usable(value) == list(value) for channel, value in writes if channel == "proposals")
    }
