"""Keep proposals in LangGraph's caches: the same question to the same model is paid for once.

LangGraph's node cache makes its key before the node knows its `MoAContext`, and a node found there
does not run: nobody would see in a trace, in the custom stream or in a quorum that it has
answered. So a proposer's node looks into the cache itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import BaseCache, FullKey, Namespace
from pydantic import Field

from moa_graph.calling import sync
from moa_graph.errors import value_object
from moa_graph.limits import Count
from moa_graph.models.fingerprint import NotFingerprintable, chosen, fingerprint, message_parts
from moa_graph.models.settings import Settings
from moa_graph.state import Proposal

_NAMESPACE = "moa_graph"
_VERSION = 2  # of the entries: those of other versions are not read


@dataclass(frozen=True)
class Asked:
    """Who is asked for a proposal.

    Args:
        model: The model, with the settings of this run.
        name: Its name.
        sample: Which of several answers of one model, from 0.
        settings: Those of this run.
        cache_key: By what the user tells the model apart, where nothing else does.
        config: The run's.
    """

    model: Runnable[Any, Any]
    name: str
    sample: int
    settings: Settings
    cache_key: str | None
    config: RunnableConfig


def why_not_cached(model: Runnable[Any, Any]) -> str | None:
    """What of a model cannot be told apart from outside; None if its proposals can be cached."""
    try:
        fingerprint(model)
    except NotFingerprintable as error:
        return str(error)
    return None


@value_object
class ProposalCache:
    """Where proposals are kept, so that they are paid for once.

    The key is made of everything that shapes an answer: the model and its parameters, prompts and
    tools, those of the run's `MoAContext` included, the text of what it is asked, and the number of
    the sample. Failed proposals are not kept.

    Args:
        cache: Any of LangGraph's caches (in memory, SQLite, Redis).
        ttl: Seconds for which a proposal is kept (at least 1); without end by default.

    Raises:
        TypeError: If `cache` is not a LangGraph cache, or `ttl` is not an integer.
        ValueError: If `ttl` is below 1.
    """

    cache: BaseCache[Any] = Field(title="Cache")
    ttl: Count | None = Field(default=None, title="Time to live", description="Seconds.")


class StoredProposals(BaseCache[Any]):
    """LangGraph's cache, with proposals among what it keeps.

    Args:
        cache: Where everything is kept.
        ttl: Seconds for which a proposal is kept; None for without end.
    """

    def __init__(self, cache: BaseCache[Any], ttl: int | None) -> None:
        super().__init__(serde=cache.serde)
        self._cache = cache
        self._ttl = ttl

    def key(self, node: str, asked: Asked, messages: Sequence[AnyMessage]) -> FullKey | None:
        """Return the key under which a proposal is kept.

        Args:
            node: The proposer's node.
            asked: Who is asked.
            messages: What it is asked, of which the ids do not count.

        Returns:
            The key; None if nothing tells the model from others, so that it must be asked.
        """
        try:
            if asked.cache_key is None:
                model: Any = fingerprint(asked.model, asked.config)
            else:
                run = [dict(asked.settings.values), dict(asked.settings.options)]
                model = [asked.cache_key, run, chosen(asked.model, asked.config)]
        except NotFingerprintable:
            return None
        question = [message_parts(m) for m in messages]
        parts = json.dumps(
            [_VERSION, model, asked.name, question, asked.sample],
            sort_keys=True,
            default=str,
        )
        return (_NAMESPACE, node), hashlib.sha256(parts.encode(errors="replace")).hexdigest()

    async def proposal(self, key: FullKey) -> Proposal | None:
        """Return the proposal that is kept there."""
        cache = self._cache
        kept = await sync.either(lambda: cache.get([key]), lambda: cache.aget([key]))
        return _read(kept.get(key))

    async def keep(self, key: FullKey, proposal: Proposal) -> None:
        """Keep a usable proposal."""
        cache = self._cache
        entry = {key: ({"version": _VERSION, "proposal": proposal}, self._ttl)}
        await sync.either(lambda: cache.set(entry), lambda: cache.aset(entry))

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """As the cache."""
        return self._cache.get(keys)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """As the cache."""
        return await self._cache.aget(keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """As the cache."""
        self._cache.set(pairs)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """As the cache."""
        await self._cache.aset(pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As the cache; clearing a node clears its proposals."""
        self._cache.clear(_with_proposals(namespaces))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """As the cache; clearing a node clears its proposals."""
        await self._cache.aclear(_with_proposals(namespaces))


def _with_proposals(namespaces: Sequence[Namespace] | None) -> Sequence[Namespace] | None:
    # LangGraph's own namespaces end in the node's name.
    return namespaces and [*namespaces, *((_NAMESPACE, ns[-1]) for ns in namespaces if ns)]


def _read(entry: Any) -> Proposal | None:
    """Return the proposal in an entry; None for one of another version of this package."""
    if not isinstance(entry, dict) or entry.get("version") != _VERSION:
        return None
    proposal: Proposal = entry["proposal"]
    return proposal
