"""Store proposals in a LangGraph cache, so that a repeated question to a model costs nothing.

LangGraph's own node cache is not suitable: it computes its key before the node knows its
`MoAContext`, and it skips a cached node, so that traces, the custom stream and the quorum would
miss the answer. A proposer's node therefore reads the cache itself.
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
from moa_graph.calling.owner import owner_in
from moa_graph.errors import value_object
from moa_graph.limits import Count
from moa_graph.models.fingerprint import NotFingerprintable, chosen, fingerprint, message_parts
from moa_graph.models.settings import Settings
from moa_graph.state import Proposal

_NAMESPACE = "moa_graph"
_PANELS = (_NAMESPACE, "panels")
_VERSION = 3  # version of the entries; entries of other versions are ignored


@dataclass(frozen=True)
class Asked:
    """Model that is asked for a proposal, with everything that identifies it.

    Args:
        model: The model, with the settings of this run.
        name: Name of the model.
        sample: Number of the sample if one model gives several answers, from 0.
        settings: Settings of this run.
        cache_key: Key from the user that identifies the model instead of its fingerprint.
        config: Configuration of the run.
    """

    model: Runnable[Any, Any]
    name: str
    sample: int
    settings: Settings
    cache_key: str | None
    config: RunnableConfig


def why_not_cached(model: Runnable[Any, Any]) -> str | None:
    """Return the part of a model that has no fingerprint; None if its proposals can be cached."""
    try:
        fingerprint(model)
    except NotFingerprintable as error:
        return str(error)
    return None


@value_object
class ProposalCache:
    """Cache for proposals, so that the same answer is not paid for twice.

    The key includes everything that affects an answer: the model with its parameters, prompts and
    tools (including those of the run's `MoAContext`), the text of the question, and the number of
    the sample. On a server it includes the user, too. Failed proposals are not stored.

    Args:
        cache: Any LangGraph cache (in memory, SQLite, Redis).
        ttl: Seconds for which a proposal is stored (at least 1); no expiry by default.

    Raises:
        TypeError: If `cache` is not a LangGraph cache, or `ttl` is not an integer.
        ValueError: If `ttl` is below 1.
    """

    cache: BaseCache[Any] = Field(title="Cache")
    ttl: Count | None = Field(default=None, title="Time to live", description="Seconds.")


class StoredProposals(BaseCache[Any]):
    """LangGraph cache that also stores proposals.

    Args:
        cache: The underlying cache.
        ttl: Seconds for which a proposal is stored; None for no expiry.
    """

    def __init__(self, cache: BaseCache[Any], ttl: int | None) -> None:
        super().__init__(serde=cache.serde)
        self._cache = cache
        self._ttl = ttl

    def key(self, node: str, asked: Asked, messages: Sequence[AnyMessage]) -> FullKey | None:
        """Return the key of a proposal.

        Args:
            node: Name of the proposer's node.
            asked: The model that is asked.
            messages: The question; message ids are ignored.

        Returns:
            The key; None if the model has no fingerprint, so that nothing can be cached.
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
            [_VERSION, model, asked.name, question, asked.sample, owner_in(asked.config)],
            sort_keys=True,
            default=str,
        )
        return (_NAMESPACE, node), hashlib.sha256(parts.encode(errors="replace")).hexdigest()

    async def proposal(self, key: FullKey) -> Proposal | None:
        """Return the stored proposal; None if there is none."""
        cache = self._cache
        kept = await sync.either(lambda: cache.get([key]), lambda: cache.aget([key]))
        return _read(kept.get(key))

    async def keep(self, key: FullKey, proposal: Proposal) -> None:
        """Store a usable proposal."""
        cache = self._cache
        entry = {key: ({"version": _VERSION, "proposal": proposal}, self._ttl)}
        await sync.either(lambda: cache.set(entry), lambda: cache.aset(entry))

    async def panel(self, key: str) -> Any:
        """Return what is stored for a turn of an agent; None if there is nothing."""
        cache, place = self._cache, (_PANELS, key)
        return (await sync.either(lambda: cache.get([place]), lambda: cache.aget([place]))).get(
            place
        )

    async def keep_panel(self, key: str, panel: Mapping[str, Any]) -> None:
        """Store the proposals of a turn of an agent."""
        cache = self._cache
        entry: dict[FullKey, tuple[Any, int | None]] = {(_PANELS, key): (panel, self._ttl)}
        await sync.either(lambda: cache.set(entry), lambda: cache.aset(entry))

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Call the underlying cache."""
        return self._cache.get(keys)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Call the underlying cache."""
        return await self._cache.aget(keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Call the underlying cache."""
        self._cache.set(pairs)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Call the underlying cache."""
        await self._cache.aset(pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Clear the underlying cache; clearing a node also clears its proposals."""
        self._cache.clear(_with_proposals(namespaces))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Clear the underlying cache; clearing a node also clears its proposals."""
        await self._cache.aclear(_with_proposals(namespaces))


def _with_proposals(namespaces: Sequence[Namespace] | None) -> Sequence[Namespace] | None:
    # LangGraph's own namespaces end with the node's name.
    return namespaces and [*namespaces, *((_NAMESPACE, ns[-1]) for ns in namespaces if ns)]


def _read(entry: Any) -> Proposal | None:
    """Return the proposal in an entry; None for an entry of another version."""
    if not isinstance(entry, dict) or entry.get("version") != _VERSION:
        return None
    proposal: Proposal = entry["proposal"]
    return proposal
