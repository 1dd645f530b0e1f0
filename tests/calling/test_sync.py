"""Runs in several event loops, threads and processes, and what is left of runs that end early."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.cache.memory import InMemoryCache

from moa_graph import CallPolicy, ChatMoA, Layer, NotEnoughProposals, Proposer, create_moa
from moa_graph.strategies import Analyse, JudgedAgreement, PeerReview, Rank, Route, Staircase, Vote
from moa_graph.strategies.experimental import Chunkwise
from tests.fake_server import eventually
from tests.mixtures import mixture_of

QUESTION = {"messages": "hi"}


@pytest.fixture
def own(server):
    """Chat models whose clients are LangChain's default ones, shared by all of one address."""
    return lambda model: ChatOpenAI(model=model, api_key="x", base_url=server.url, max_retries=0)


BUILDS = {
    "layers": lambda m: create_moa([m("a"), m("b")], m("g"), layers=3),
    "judge": lambda m: create_moa([m("a"), m("b")], Rank(m("j"))),
    "until": lambda m: create_moa(
        Layer([m("a"), m("b")], until=JudgedAgreement(m("j"))), m("g"), layers=3
    ),
    "analyse": lambda m: create_moa([m("a"), m("b")], Analyse(m("g"))),
    "peer review": lambda m: create_moa([m("a"), m("b"), m("c")], PeerReview(m("g"))),
    "route": lambda m: create_moa([m("a")], m("g"), route=Route(m("r"), samples=2)),
    "progressive": lambda m: create_moa([m("a"), m("b")], m("g"), progressive=Staircase()),
    "quorum": lambda m: create_moa(Layer([m("a"), m("b")], quorum=2), m("g")),
}


@pytest.mark.parametrize("build", BUILDS)
def test_one_graph_in_one_event_loop_after_the_other(own, server, build):
    server.answers["j"] = "1"
    moa = BUILDS[build](own)
    model = ChatMoA(graph=moa)
    with ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            state = thread.submit(lambda: asyncio.run(moa.ainvoke(QUESTION))).result(30)
            assert [p["status"] for p in state["proposals"]] == ["ok"] * len(state["proposals"])
            assert thread.submit(lambda: asyncio.run(model.ainvoke("hi"))).result(30).text
            assert moa.invoke(QUESTION)["messages"][-1].text


def test_another_graph_in_another_event_loop(own):
    def ask() -> Any:
        return asyncio.run(create_moa([own("a"), own("b")], own("g")).ainvoke(QUESTION))

    with ThreadPoolExecutor(1) as thread:
        for _ in range(3):
            state = thread.submit(ask).result(30)
            assert [p["status"] for p in state["proposals"]] == ["ok", "ok"]
            assert [p["attempts"] for p in state["proposals"]] == [1, 1]


def test_threads_with_loops_of_their_own_and_sync_runs_at_the_same_time(own):
    moa = create_moa(Layer([own("a?latency=0.02"), own("b")], quorum=2), own("g"))

    def ask(i: int) -> Any:
        return asyncio.run(moa.ainvoke(QUESTION)) if i % 2 else moa.invoke(QUESTION)

    with ThreadPoolExecutor(6) as threads:
        for state in threads.map(ask, range(24)):
            assert [p["status"] for p in state["proposals"]] == ["ok", "ok"]


def test_a_model_that_a_closed_loop_has_used_before(chat):
    """Its pooled connections are lost, which only the next request notices."""
    model = chat("a", http_async_client=httpx.AsyncClient())
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(model.ainvoke("hi"))).result(30)
        moa = create_moa([model], model, calls=CallPolicy(retries=0))
        state = thread.submit(lambda: asyncio.run(moa.ainvoke(QUESTION))).result(30)
    assert state["messages"][-1].text


def _in_child(url: str, results: Any) -> None:
    def own(model: str) -> ChatOpenAI:
        return ChatOpenAI(model=model, api_key="x", base_url=url, max_retries=0)

    results.put(
        create_moa(Layer([own("a"), own("b")], quorum=2), own("g"))
        .invoke(QUESTION)["messages"][-1]
        .text
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_a_loop_of_its_own(own, server):
    assert create_moa(Layer([own("a"), own("b")], quorum=2), own("g")).invoke(QUESTION)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_child, args=(server.url, results))
    child.start()
    try:
        assert results.get(timeout=30)
    finally:
        child.join(10)
        child.kill()


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_cache_hit_that_completes_a_quorum_is_seen(chat, server, mode):
    cache = InMemoryCache()
    late = Proposer(chat("late?latency=6"), name="late")
    await create_moa([chat("a"), chat("b")], chat("g"), cache=cache).ainvoke(QUESTION)
    moa = create_moa(Layer([late, chat("a"), chat("b")], quorum=2), chat("g"), cache=cache)
    async with asyncio.timeout(4):
        state = await (
            asyncio.to_thread(moa.invoke, QUESTION) if mode == "sync" else moa.ainvoke(QUESTION)
        )
    assert [p["status"] for p in state["proposals"]] == ["abandoned", "ok", "ok"]


async def test_a_sync_call_that_would_wait_for_itself_is_refused(chat):
    inner = create_moa(Layer([chat("a"), chat("b")], quorum=2), chat("g"))

    async def calls(messages: Any) -> Any:
        return inner.invoke(QUESTION)["messages"][-1]

    model = RunnableLambda(lambda _: "sync", afunc=calls)
    outer = create_moa([Proposer(model, name="p", timeout=5)], chat("g"))
    with pytest.raises(NotEnoughProposals, match=r"wait for itself\. Call ainvoke"):
        await asyncio.to_thread(outer.invoke, QUESTION)
    # The loop serves other runs.
    assert (await asyncio.to_thread(inner.invoke, QUESTION))["messages"][-1].text


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_blocking_function_of_the_users_delays_no_other_run(chat, mode):
    def slowly(text: str) -> str:
        time.sleep(1.5)
        return text

    def run(moa: Any) -> Any:
        return asyncio.to_thread(moa.invoke, QUESTION) if mode == "sync" else moa.ainvoke(QUESTION)

    slow = asyncio.create_task(run(create_moa([chat("a")], Vote(parse=slowly))))
    blocking = RunnableLambda(lambda _: slowly("x"))
    also = asyncio.create_task(run(create_moa([blocking], Vote())))
    await asyncio.sleep(0.1)
    await run(create_moa(Layer([chat("a"), chat("b")], quorum=2), chat("g")))
    assert not slow.done()
    assert not also.done()
    assert (await slow)["messages"]
    assert (await also)["messages"]


@pytest.mark.parametrize(
    ("mode", "through"),
    [
        ("sync", "graph"),
        ("async", "graph"),
        ("async", "ChatMoA"),
        pytest.param("sync", "ChatMoA", marks=pytest.mark.full),
    ],
)
async def test_cancelled_runs_leave_nothing(chat, server, through, mode):
    moa = create_moa(
        Layer([chat("a?latency=0.02"), chat("b?latency=0.05")], quorum=1),
        chat("g?latency=0.03"),
        layers=3,
        calls=CallPolicy(concurrent={"openai": 2}),
    )
    model = moa if through == "graph" else ChatMoA(graph=moa)
    question = QUESTION if through == "graph" else "hi"
    chance = random.Random(0)
    cancelled = 0

    async def ask(seconds: float) -> None:
        nonlocal cancelled
        try:
            await asyncio.wait_for(model.ainvoke(question), seconds)
        except TimeoutError:
            cancelled += 1

    def read(seconds: float) -> None:
        nonlocal cancelled
        until = time.monotonic() + seconds
        for _ in model.stream(question):
            if time.monotonic() > until:
                cancelled += 1
                break

    async def some(count: int) -> None:
        moments = [chance.uniform(0, 0.3) for _ in range(count)]
        if mode == "async":
            await asyncio.gather(*map(ask, moments))
        else:
            with ThreadPoolExecutor(10) as threads:
                await asyncio.to_thread(lambda: list(threads.map(read, moments)))
        await eventually(lambda: all(call.ended for call in server.calls), 5)
        await eventually(lambda: len(asyncio.all_tasks()) == 1, 5)
        gc.collect()

    def left() -> int:
        return sum(t.name.startswith("moa_graph-") for t in threading.enumerate())

    await some(20)
    files = psutil.Process().num_fds()
    await some(100)
    assert cancelled > 20
    assert len(moa.plan.runs) == 0
    slots = moa.plan.calls.slots._slots["openai"]
    await eventually(lambda: (slots._free, len(slots._line)) == (2, 0), 5)
    await eventually(lambda: left() == 0, 5)
    await eventually(lambda: psutil.Process().num_fds() <= files + 2, 10)
    assert (await moa.ainvoke(QUESTION))["messages"][-1].text


async def test_no_thread_is_left_of_sync_runs(chat):
    moa = create_moa(Layer([chat("a"), chat("b")], quorum=1), chat("g"))
    await asyncio.to_thread(moa.invoke, QUESTION)
    before = {t.name for t in threading.enumerate()}
    for _ in range(5):
        await asyncio.to_thread(moa.invoke, QUESTION)
    await eventually(
        lambda: not [t for t in threading.enumerate() if t.name == "moa_graph-call"], 5
    )
    assert {t.name for t in threading.enumerate() if t.name.startswith("moa_graph")} <= before | {
        "moa_graph"
    }


async def test_a_limit_of_steps_that_is_given_is_kept(chat, server):
    from langgraph.errors import GraphRecursionError

    server.answer_all = " ".join(f"w{i}" for i in range(200))
    moa = create_moa([chat("a?writes")], chat("g?writes"), progressive=Chunkwise(first=4))
    with pytest.raises(GraphRecursionError):
        await moa.ainvoke(QUESTION, {"recursion_limit": 25})
    chain = RunnableLambda(lambda x: x) | moa
    assert (await chain.ainvoke(QUESTION))["messages"][-1].text
    assert (await moa.abatch([QUESTION]))[0]["messages"][-1].text


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt()], ids=["exit", "interrupt"])
@pytest.mark.parametrize("options", [{}, {"quorum": 2}, {"timeout": 20}], ids=str)
async def test_an_exit_inside_of_a_model_reaches_the_caller_and_ends_no_other_run(
    chat, options, error
):
    def leaves(_: Any) -> Any:
        raise error

    moa = mixture_of([Proposer(RunnableLambda(leaves), name="p"), chat("b")], chat("g"), **options)

    def ask() -> str:
        try:
            moa.invoke(QUESTION)
        except BaseException as raised:
            return type(raised).__name__
        return "nothing"

    async with asyncio.timeout(10):
        assert await asyncio.to_thread(ask) == type(error).__name__
        other = create_moa(Layer([chat("a"), chat("b")], quorum=2), chat("g"))
        assert (await asyncio.to_thread(other.invoke, QUESTION))["messages"][-1].text
