from __future__ import annotations

import asyncio
import sys

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import Layer, NotEnoughProposals, Proposer, RunLimits, create_moa
from moa_graph.calling.budget import price_of
from moa_graph.state import total_usage
from tests.nodes.test_nodes import run

QUESTION = {"messages": "hi"}
USED_UP = {"input_tokens": 10, "output_tokens": 1980, "total_tokens": 1990}


def spent(state) -> int:
    answer = state["messages"][-1].usage_metadata
    return total_usage([*(p["usage"] for p in state["proposals"]), answer])["total_tokens"]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("tokens", [1, 50, 400, 700, 1500, 10_000])
@pytest.mark.parametrize("limited", [True, False])
async def test_a_budget_is_exceeded_by_one_calls_limit_at_most(chat, server, limited, tokens, mode):
    """Models that use up what they are allowed; with and without a limit of their own."""
    longest = {"max_tokens": 100} if limited else {}
    models = [chat(f"m{i}?max_tokens", **longest) for i in range(4)]
    aggregator = chat("agg?max_tokens", max_tokens=100)
    graph = create_moa(models, aggregator, layers=3, limits=RunLimits(tokens=tokens))
    if tokens <= 50:  # the aggregator is not asked without a proposal
        with pytest.raises(NotEnoughProposals, match=f"the run's budget of {tokens} tokens is too"):
            await run(graph, mode, QUESTION)
        assert not server.calls
        return
    state = await run(graph, mode, QUESTION)
    assert state["messages"][-1].text.startswith("word")
    assert spent(state) <= tokens + state["messages"][-1].usage_metadata["total_tokens"]
    asked = [p for p in state["proposals"] if p["attempts"]]
    assert len(asked) == len([c for c in server.calls if c.label != "agg"])
    for proposal in state["proposals"]:
        if not proposal["attempts"]:
            assert proposal["status"] == "abandoned"
            assert f"budget of {tokens:,} tokens" in proposal["error"]
    if limited and tokens == 10_000:
        assert len(asked) == 8


@pytest.mark.parametrize("fewest", [1, 2, 3])
async def test_a_budget_leaves_no_fewer_proposals_than_the_layer_needs(chat, server, fewest):
    models = [chat(f"m{i}?max_tokens", max_tokens=50) for i in range(4)]
    layer = Layer(models, min_proposals=fewest)
    graph = create_moa(layer, chat("agg"), limits=RunLimits(tokens=90))
    if fewest == 3:
        with pytest.raises(NotEnoughProposals, match="the run's budget of 90 tokens is") as error:
            await graph.ainvoke(QUESTION)
        usable = [p for p in error.value.proposals if p["status"] == "ok"]
        assert 1 <= len(usable) < fewest
        assert not server.of("agg")
        return
    state = await graph.ainvoke(QUESTION)
    usable = [p for p in state["proposals"] if p["status"] == "ok"]
    assert fewest <= len(usable) < 4
    assert server.of("agg")[0].system.count("word word") > 0


async def test_a_layer_that_the_budget_leaves_out_leaves_that_before_it(chat, server):
    tells = RunnableLambda(lambda _: AIMessage("a: hi", usage_metadata=USED_UP))
    layers = [[Proposer(tells, name="a")], [chat("b?max_tokens", max_tokens=5000)]]
    state = await create_moa(layers, chat("agg"), limits=RunLimits(tokens=2000)).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "abandoned"]
    assert "1. a: hi" in server.of("agg")[0].system


async def test_a_long_limit_of_a_model_leaves_room_for_the_others(chat, server):
    """Three proposers of 8,192 tokens each, with a budget for one: each gets its share."""
    models = [chat(name, max_tokens=8192) for name in "abc"]
    layer = Layer(models, min_proposals=3)
    state = await create_moa(layer, chat("agg"), limits=RunLimits(tokens=10_000)).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok"] * 3
    for name in "abc":
        asked = server.of(name)[0].body
        assert 1500 < (asked.get("max_completion_tokens") or asked["max_tokens"]) < 3500
    # With room for all, each has its own limit.
    server.reset()
    await create_moa(layer, chat("agg"), limits=RunLimits(tokens=100_000)).ainvoke(QUESTION)
    asked = server.of("a")[0].body
    assert (asked.get("max_completion_tokens") or asked["max_tokens"]) == 8192


async def test_failures_are_still_failures(chat, server):
    graph = create_moa([chat("a?status=400")], chat("agg"), limits=RunLimits(tokens=10_000))
    with pytest.raises(NotEnoughProposals):
        await graph.ainvoke(QUESTION)


async def test_dollars_are_counted_with_the_prices_given(chat, server):
    prices = {f"m{i}?max_tokens": (0.0, 1000.0) for i in range(4)} | {"agg": (0.0, 0.0)}
    models = [chat(f"m{i}?max_tokens", max_tokens=100) for i in range(4)]
    graph = create_moa(models, chat("agg"), limits=RunLimits(usd=0.25, prices=prices))
    state = await graph.ainvoke(QUESTION)  # ten cents each, or less
    assert [p["status"] for p in state["proposals"]].count("ok") == 4
    assert sum(p["usage"]["output_tokens"] for p in state["proposals"]) <= 250
    graph = create_moa(models, chat("agg"), limits=RunLimits(usd=0.01, prices=prices))
    with pytest.raises(NotEnoughProposals, match=r"\$0.01"):
        await graph.ainvoke(QUESTION)


async def test_a_retry_is_paid_from_the_same_budget(chat, server):
    models = [chat("a?max_tokens&cut=1", max_tokens=100), chat("b?max_tokens", max_tokens=100)]
    graph = create_moa(models, chat("agg"), limits=RunLimits(tokens=330))
    state = await graph.ainvoke(QUESTION)
    assert len(server.calls) - 1 <= 3
    assert state["messages"][-1].text


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_run_has_its_own_budget_and_runs_do_not_share_it(chat, server, mode):
    models = [chat(f"m{i}?max_tokens", max_tokens=100) for i in range(3)]
    graph = create_moa(models, chat("agg"))
    for _ in range(2):
        state = await run(graph, mode, QUESTION, context={"token_budget": 260})
        assert [p["status"] for p in state["proposals"]].count("ok") == 3
        assert sum(p["usage"]["total_tokens"] for p in state["proposals"]) <= 260
    state = await run(graph, mode, QUESTION)
    assert sum(p["usage"]["output_tokens"] for p in state["proposals"]) == 300


async def test_turns_and_concurrent_runs_have_a_budget_each(chat, server):
    models = [chat(f"m{i}?max_tokens", max_tokens=100) for i in range(3)]
    graph = create_moa(models, chat("agg"), limits=RunLimits(tokens=260))
    states = await asyncio.gather(*(graph.ainvoke({"messages": "hi"}) for _ in range(10)))
    used = [sum(p["usage"]["total_tokens"] for p in s["proposals"]) for s in states]
    assert all(150 < tokens <= 260 for tokens in used)
    assert len(set(used)) == 1


async def test_what_is_no_chat_model_is_counted_by_what_it_tells(chat, server):
    def tell(messages):
        usage = {"input_tokens": 10, "output_tokens": 500, "total_tokens": 510}
        return AIMessage("here", usage_metadata=usage)

    layers = [[Proposer(RunnableLambda(tell), name="f")], [chat("b?max_tokens", max_tokens=100)]]
    state = await create_moa(layers, chat("agg"), limits=RunLimits(tokens=600)).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "abandoned"]


def test_a_price_nobody_knows_is_told_when_the_graph_is_built(chat):
    with pytest.raises(ValueError, match="no price for 'nobody-knows'"):
        create_moa([chat("nobody-knows")], chat("gpt-4o"), limits=RunLimits(usd=1))
    create_moa([chat("gpt-4o")], chat("gpt-4o-mini"), limits=RunLimits(usd=1))
    prices = {"nobody-knows": (1.0, 2.0)}
    create_moa([chat("nobody-knows")], chat("gpt-4o"), limits=RunLimits(usd=1, prices=prices))


def test_without_the_price_table_the_error_says_how_to_get_it(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ValueError, match=r"moa-graph\[prices\]"):
        create_moa([chat("gpt-4o")], chat("gpt-4o"), limits=RunLimits(usd=1))


def test_prices_are_dollars_per_million_tokens():
    price = price_of(RunLimits(usd=1), "gpt-4o", "openai")
    assert 0.5 < price[0] < price[1] < 50


@pytest.mark.parametrize(
    "arguments",
    [{}, {"tokens": 0}, {"tokens": -5}, {"tokens": 1.5}, {"tokens": True}, {"usd": 0},
     {"usd": -1.0}, {"usd": float("nan")}, {"usd": "1"}],
)  # fmt: skip
def test_bad_budgets_are_refused(arguments):
    with pytest.raises((ValueError, TypeError), match="RunLimits"):
        RunLimits(**arguments)


async def test_an_edited_record_cannot_raise_the_budget(chat, server):
    """A client of a server can write proposals into its thread, with any usage."""
    layers = [[chat("a")], [chat("b?max_tokens", max_tokens=5000)]]
    limits = RunLimits(tokens=2000)
    graph = create_moa(layers, chat("agg"), limits=limits, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(QUESTION, thread, interrupt_after=["layer_1_a"])
    (proposal,) = (await graph.aget_state(thread)).values["proposals"]
    usage = {"input_tokens": -(10**9), "output_tokens": 0, "total_tokens": -(10**9)}
    update = {"proposals": [{**proposal, "usage": usage}]}
    await graph.aupdate_state(thread, update, as_node="layer_1_a")
    state = await graph.ainvoke(None, thread)
    assert state["proposals"][1]["usage"]["total_tokens"] <= 2000
