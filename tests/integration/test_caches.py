"""LangGraph's caches outside of memory, shared by processes and over time."""

from __future__ import annotations

import asyncio
import gc

import pytest
from langgraph.cache.redis import RedisCache
from langgraph.cache.sqlite import SqliteCache

from moa_graph import Proposer, create_moa


@pytest.mark.full
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_another_aggregator_pays_no_proposer_again(
    chat, server, request, tmp_path, kind, mode
):
    texts = []
    for aggregator in ("one", "two"):
        if kind == "sqlite":
            cache = SqliteCache(path=str(tmp_path / "cache.sqlite"))
        else:
            cache = RedisCache(request.getfixturevalue("redis"), prefix=f"{mode}:")
        models = [chat("a"), Proposer(chat("b?unstable"), samples=4)]
        graph = create_moa(models, chat(aggregator), layers=3, cache=cache)
        given = {"messages": "What is a cat?"}
        if mode == "invoke":
            state = await asyncio.to_thread(graph.invoke, given)
        else:
            state = await graph.ainvoke(given)
        texts.append([p["content"] for p in state["proposals"]])
        del cache, graph
        gc.collect()
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 1 + 4 + 4
    assert len(server.of("a")) == 2
    assert len(server.of("b")) == 8
    assert (len(server.of("one")), len(server.of("two"))) == (1, 1)
