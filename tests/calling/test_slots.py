from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from moa_graph import CallPolicy, ChatMoA, Layer, Proposer, create_moa
from moa_graph.calling import sync
from moa_graph.calling.slots import CallSlots
from tests.fake_server import eventually
from tests.mixtures import mixture_of

QUESTION = {"messages": "hi"}


def most_at_once(calls) -> int:
    moments = sorted([(c.started, 1) for c in calls] + [(c.ended, -1) for c in calls])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_a_provider_gets_no_more_calls_at_once_over_all_runs(chat, server, mode):
    models = [chat(f"m{i}?latency=0.05") for i in range(4)]
    graph = create_moa(models, chat("agg?latency=0.05"), calls=CallPolicy(concurrent={"openai": 3}))
    given = [QUESTION] * 6
    if mode == "batch":
        states = await asyncio.to_thread(graph.batch, given)
    else:
        states = await graph.abatch(given)
    assert len(states) == 6
    assert most_at_once(server.calls) == 3


async def test_a_model_gets_no_more_calls_at_once_and_others_do_not_wait(chat, server):
    models = [
        Proposer(chat("gpu?latency=0.1"), samples=3),
        *(chat(f"m{i}?latency=0.1") for i in range(3)),
    ]
    calls = CallPolicy(concurrent={"openai:gpu?latency=0.1": 1})
    await create_moa(models, chat("agg"), calls=calls).ainvoke(QUESTION)
    assert most_at_once(server.of("gpu")) == 1
    assert most_at_once([c for c in server.calls if c.label != "gpu"]) == 3


async def test_several_graphs_share_limits_and_so_do_sync_and_async_runs(chat, server):
    calls = CallPolicy(concurrent={"openai": 2})
    graphs = [
        create_moa(Layer([chat("a?latency=0.05"), chat("b?latency=0.05")], quorum=quorum), chat("agg"), calls=calls)
        for quorum in (None, 2)
    ]  # fmt: skip
    await asyncio.gather(
        *(g.ainvoke(QUESTION) for g in graphs),
        *(asyncio.to_thread(g.invoke, QUESTION) for g in graphs),
    )
    assert most_at_once(server.calls) == 2
    assert len(server.calls) == 12


async def test_who_stops_waiting_leaves_the_place_to_the_next(chat, server):
    graph = create_moa(
        [chat("slow?latency=0.4"), Proposer(chat("late"), timeout=0.1), chat("b")],
        chat("agg"),
        calls=CallPolicy(concurrent={"openai": 1}),
    )
    state = await graph.ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "timed_out", "ok"]
    assert not server.of("late")


async def test_places_are_given_back_after_failures_and_cancellations(chat, server):
    calls = CallPolicy(concurrent={"openai": 1})
    bad = create_moa([chat("bad?status=400"), chat("a")], chat("agg"), calls=calls)
    hung = create_moa([chat("hang?hang")], chat("agg"), calls=calls)
    for _ in range(3):
        await bad.ainvoke(QUESTION)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hung.ainvoke(QUESTION), 0.2)
    assert (await bad.ainvoke(QUESTION))["messages"][-1].text == "agg: hi"


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("kind", ["agent", "function", "mixture", "fallbacks"])
async def test_models_inside_of_agents_and_chains_count(server, kind, mode):
    def chat(model: str) -> ChatOpenAI:
        clients = {"http_client": httpx.Client(), "http_async_client": httpx.AsyncClient()}
        return ChatOpenAI(model=model, api_key="x", base_url=server.url, max_retries=0, **clients)

    def function(model: Any) -> Any:
        def ask(messages: Any, config: RunnableConfig) -> Any:
            return model.invoke(messages, config)

        async def aask(messages: Any, config: RunnableConfig) -> Any:
            return await model.ainvoke(messages, config)

        return RunnableLambda(ask, afunc=aask)

    kinds = {
        "agent": lambda m: create_agent(chat(m), tools=[]),
        "function": lambda m: function(chat(m)),
        "mixture": lambda m: ChatMoA(graph=create_moa([chat(m)], chat("inner"))),
        "fallbacks": lambda m: chat("gone?status=404").with_fallbacks([chat(m)]),
    }
    models = [Proposer(kinds[kind](f"m{i}?latency=0.05"), name=f"p{i}") for i in range(4)]
    calls = CallPolicy(concurrent={"openai": 1})
    moa = create_moa(models, chat("agg"), calls=calls)
    given = {"messages": "hi"}
    state = await (asyncio.to_thread(moa.invoke, given) if mode == "sync" else moa.ainvoke(given))
    assert [p["status"] for p in state["proposals"]] == ["ok"] * 4
    made = sorted((c for c in server.calls if c.label.startswith("m")), key=lambda c: c.started)
    assert all(a.ended <= b.started for a, b in pairwise(made))
    slots = calls.slots._slots["openai"]
    assert (slots._free, len(slots._line)) == (1, 0)


async def test_a_cancelled_agent_gives_its_place_back(chat, server):
    calls = CallPolicy(concurrent={"openai": 1})
    agent = Proposer(create_agent(chat("a?hang"), tools=[]), name="p", timeout=0.3)
    moa = create_moa([agent, chat("b")], chat("agg"), calls=calls)
    async with asyncio.timeout(10):
        state = await moa.ainvoke({"messages": "hi"})
    assert state["messages"][-1].text
    slots = calls.slots._slots["openai"]
    assert (slots._free, len(slots._line)) == (1, 0)


async def test_hammering_from_threads_and_tasks_never_exceeds_the_limit():
    limits, inside, most = CallSlots({"x": 3}), 0, 0
    lock = threading.Lock()

    def enter(step: int) -> None:
        nonlocal inside, most
        with lock:
            inside += step
            most = max(most, inside)

    async def hold() -> None:
        async with limits.hold("x", "unlimited"):
            enter(1)
            enter(-1)

    def thread() -> None:
        for _ in range(50):
            sync.run(hold(), cancellable=False)

    async def task() -> None:
        for i in range(50):
            try:
                async with asyncio.timeout(0.001 if i % 3 == 0 else None), limits.hold("x"):
                    enter(1)
                    try:
                        await asyncio.sleep(0.0005)
                    finally:
                        enter(-1)
            except TimeoutError:
                pass

    await asyncio.gather(
        *(asyncio.to_thread(thread) for _ in range(4)), *(task() for _ in range(9))
    )
    assert 1 <= most <= 3
    assert inside == 0
    async with asyncio.timeout(1), limits.hold("x"), limits.hold("x"), limits.hold("x"):
        pass


@pytest.mark.parametrize("options", [{"timeout": 0.15}, {"quorum": 1}], ids=str)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_agent_that_is_cut_while_it_waits_gives_its_places_back(mode, options):
    class Slow(GenericFakeChatModel):
        def _generate(self, messages, *args, **kwargs):
            time.sleep(0.2)
            return super()._generate(messages, *args, **kwargs)

        def _get_ls_params(self, stop=None, **kwargs):
            return {"ls_provider": "p"}

        def bind_tools(self, tools, **kwargs):
            return self

    inner = Slow(messages=iter([AIMessage("x") for _ in range(99)]))

    @tool
    def ask(q: str) -> str:
        """Ask."""
        return inner.invoke(q).text

    asked = [{"name": "ask", "args": {"q": "x"}, "id": f"c{i}"} for i in range(2)]
    acting = Slow(messages=iter([AIMessage("", tool_calls=asked), *[AIMessage("done")] * 9]))
    calls = CallPolicy(concurrent={"p": 1})
    quick = RunnableLambda(lambda _: "quick")
    agent = Proposer(create_agent(acting, tools=[ask]), name="agent")
    moa = mixture_of([agent, quick], quick, calls=calls, **options)
    given = {"messages": "hi"}
    async with asyncio.timeout(20):
        state = await (
            asyncio.to_thread(moa.invoke, given) if mode == "sync" else moa.ainvoke(given)
        )
        assert state["messages"][-1].text == "quick"
        slots = calls.slots._slots["p"]
        await eventually(lambda: (slots._free, len(slots._line)) == (1, 0))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("kind", ["graph", "ChatMoA"])
async def test_limits_shared_with_a_mixture_inside_do_not_wait_for_themselves(chat, kind, mode):
    calls = CallPolicy(concurrent={"openai": 1})
    inner = create_moa([chat("a")], chat("b"), calls=calls)
    model = ChatMoA(graph=inner) if kind == "ChatMoA" else inner
    outer = create_moa([Proposer(model, name="inner"), chat("c")], chat("d"), calls=calls)
    given = {"messages": "hi"}
    async with asyncio.timeout(20):
        state = await (
            asyncio.to_thread(outer.invoke, given) if mode == "sync" else outer.ainvoke(given)
        )
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok"]
