from __future__ import annotations

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import CachePolicy

from moa_graph import Proposer, create_moa


@pytest.fixture
def build(chat):
    cache = InMemoryCache()

    def make(proposers, aggregator="agg", **options):
        policy = options.pop("cache_policy", CachePolicy())
        return create_moa(proposers, chat(aggregator), cache=cache, cache_policy=policy, **options)

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
    graph = build([chat("a?fail_first=1"), chat("b")], max_retries=0)
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


async def test_a_key_of_the_users_own_is_used(build, chat, server):
    policy = CachePolicy(key_func=lambda state: "always the same")
    graph = build([chat("a")], cache_policy=policy)
    for question in ("one", "two"):
        state = await graph.ainvoke({"messages": question})
    assert state["proposals"][0]["content"] == "a: one"
    assert len(server.of("a")) == 1
