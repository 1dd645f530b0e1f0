"""The cache of proposals that an operator has configured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from langgraph.cache.base import BaseCache, FullKey

_REDIS = ("redis://", "rediss://")


@lru_cache
def cache_at(address: str) -> BaseCache[Any] | None:
    """Return the cache at an address.

    Args:
        address: Path of an SQLite file, `redis://HOST:PORT`, or "" for none.

    Raises:
        ImportError: If its package is not installed. The message says what to install.
    """
    if not address:
        return None
    if address.startswith(_REDIS):
        return _InThreads(_redis_at(address))
    try:
        from langgraph.cache.sqlite import SqliteCache  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "MOA_CACHE names a file. Install its package: pip install langgraph-checkpoint-sqlite"
        ) from error
    return SqliteCache(path=address)


def _redis_at(address: str) -> BaseCache[Any]:
    try:
        from langgraph.cache.redis import RedisCache  # noqa: PLC0415 - optional
        from redis import Redis  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "MOA_CACHE names a Redis server. Install its package: pip install redis"
        ) from error
    return RedisCache(Redis.from_url(address), prefix="moa:")


class _InThreads(BaseCache[Any]):
    """A cache whose async methods run in threads: those of LangGraph's `RedisCache` block."""

    def __init__(self, cache: BaseCache[Any]) -> None:
        super().__init__(serde=cache.serde)
        self._cache = cache

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return self._cache.get(keys)

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        return await asyncio.to_thread(self._cache.get, keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        self._cache.set(pairs)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        await asyncio.to_thread(self._cache.set, pairs)

    def clear(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> None:
        self._cache.clear(namespaces)

    async def aclear(self, namespaces: Sequence[tuple[str, ...]] | None = None) -> None:
        await asyncio.to_thread(self._cache.clear, namespaces)
