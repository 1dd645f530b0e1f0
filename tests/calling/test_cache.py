from __future__ import annotations

import asyncio

import pytest
from langchain_core.caches import InMemoryCache as LangChainInMemoryCache
from langchain_core.globals import set_llm_cache
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import ProposalCache, Proposer, create_moa
from tests.mixtures import mixture_of


@pytest.fixture
def build(chat):
    cache = InMemoryCache()

    def make(proposers, aggregator="agg", **options):
        return mixture_of(proposers, chat(aggregator), cache=cache, **options)

    return make


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_another_aggregator_pays_no_proposer_again(build, chat, server, mode):
    for aggregator in ("agg", "other"):
        graph = build([chat("a"), Proposer(chat("b"), samples=2)], aggregator, layers=3)
        given = {"messages": "hi"}
        state = graph.invoke(given) if mode == "invoke" else await graph.ainvoke(given)
        assert [p["content"] for p in state["proposals"]] == ["a: hi", "b: hi", "b: hi"] * 2
        assert state["messages"][-1].text == f"{aggregator}: hi"
    assert sorted(server.labels()) == ["a"] * 2 + ["agg"] + ["b"] * 4 + ["other"]


async def test_other_questions_models_parameters_and_roles_are_told_apart(build, chat, server):
    for proposer in (
        chat("a"),
        chat("a", temperature=0.5),
        Proposer(chat("a"), prompt="Be brief."),
        Proposer(chat("c"), name="a"),
    ):
        await build([proposer]).ainvoke({"messages": "hi"})
    await build([chat("a")]).ainvoke({"messages": "other"})
    assert len(server.of("a")) == 4
    assert len(server.of("c")) == 1


async def test_a_failed_proposal_is_not_kept(build, chat, server):
    graph = build([chat("a?fail_first=1"), chat("b")], retries=0)
    for statuses in (["failed", "ok"], ["ok", "ok"], ["ok", "ok"]):
        state = await graph.ainvoke({"messages": "hi"})
        assert [p["status"] for p in state["proposals"]] == statuses
    assert len(server.of("a")) == 2
    assert len(server.of("b")) == 1


async def test_turns_of_a_thread_do_not_take_each_others_proposals(build, chat, server):
    graph = build([chat("a")], checkpointer=InMemorySaver())
    for thread in ("1", "2"):
        for question in ("one", "one"):
            config = {"configurable": {"thread_id": thread}}
            state = await graph.ainvoke({"messages": question}, config)
        assert [(p["content"], p["turn"]) for p in state["proposals"]] == [("a: one", 2)]
    assert len(server.of("a")) == 2


async def test_samples_stay_different_and_come_back_the_same(build, chat, server):
    proposer = Proposer(chat("a?unstable"), samples=4)
    first = await build([proposer]).ainvoke({"messages": "hi"})
    texts = [p["content"] for p in first["proposals"]]
    assert len(set(texts)) == 4
    again = await build([proposer], "other").ainvoke({"messages": "hi"})
    assert [p["content"] for p in again["proposals"]] == texts
    assert len(server.of("a")) == 4


async def test_samples_are_not_taken_from_langchains_own_cache(chat, server):
    set_llm_cache(LangChainInMemoryCache())
    try:
        graph = create_moa([chat("first"), Proposer(chat("a?unstable"), samples=4)], chat("agg"))
        for times in (1, 2):
            state = await graph.ainvoke({"messages": "hi"})
            samples = [p["content"] for p in state["proposals"][1:]]
            assert len(set(samples)) == 4
            assert len(server.of("first")) == 1, times
    finally:
        set_llm_cache(None)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_what_comes_from_the_cache_says_so_and_was_not_paid_for(build, chat, server, mode):
    for cached in (False, True):
        graph = build([chat("a"), chat("b")])
        given = {"messages": "hi"}
        state = graph.invoke(given) if mode == "invoke" else await graph.ainvoke(given)
        for proposal in state["proposals"]:
            assert proposal.get("cached", False) is cached
            assert proposal["attempts"] == (0 if cached else 1)
            assert (proposal["usage"] is None) is cached


async def test_cached_proposers_are_seen_in_the_streams_and_count_for_a_quorum(build, chat, server):
    models = [chat("a"), chat("b"), chat("c?hang")]
    await build([models[0], models[1]]).ainvoke({"messages": "hi"})
    graph = build(models, quorum=2)
    events = [
        (event["type"], event.get("proposer"))
        async for event in graph.astream({"messages": "hi"}, stream_mode="custom")
    ]
    for proposer in ("a", "b"):
        assert ("proposer_started", proposer) in events
        assert ("proposer_ended", proposer) in events
    assert len(server.of("a")) == len(server.of("b")) == 1


async def test_settings_of_the_run_are_told_apart(build, chat, server):
    graph = build([chat("a")])
    for temperature in (0.1, 0.9, 0.1, None, None):
        await graph.ainvoke({"messages": "hi"}, context={"proposer_temperature": temperature})
    assert len(server.of("a")) == 3


async def test_a_cache_without_a_policy_is_used_too(chat, server):
    cache = InMemoryCache()
    for aggregator in ("one", "two"):
        graph = create_moa([chat("a")], chat(aggregator), cache=cache)
        await graph.ainvoke({"messages": "hi"})
    assert len(server.of("a")) == 1


async def test_proposals_are_kept_as_long_as_it_says(chat, server):
    graph = create_moa([chat("a")], chat("agg"), cache=ProposalCache(InMemoryCache(), ttl=1))
    await graph.ainvoke({"messages": "hi"})
    await asyncio.sleep(1.2)
    await graph.ainvoke({"messages": "hi"})
    assert len(server.of("a")) == 2


async def test_clearing_a_nodes_cache_clears_its_proposals(build, chat, server):
    graph = build([chat("a"), chat("b")])
    await graph.ainvoke({"messages": "hi"})
    await graph.aclear_cache(["layer_1_a"])
    await graph.ainvoke({"messages": "hi"})
    assert (len(server.of("a")), len(server.of("b"))) == (2, 1)
    graph.clear_cache()
    await graph.ainvoke({"messages": "hi"})
    assert (len(server.of("a")), len(server.of("b"))) == (3, 2)
