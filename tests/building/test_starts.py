"""Runs that begin at the same time are prepared one after the other."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from moa_graph import ChatMoA, create_moa
from moa_graph.building import starts
from moa_graph.building.starts import wait_for_turn

RUNS = 24


def asked(messages) -> str:
    return messages[-1].text


def noting(order: list[str], seconds: float = 0.2):
    """A model that notes its questions."""

    async def answer(messages) -> AIMessage:
        order.append(asked(messages))
        await asyncio.sleep(seconds)
        return AIMessage("x")

    return RunnableLambda(answer)


class Starts(AsyncCallbackHandler):
    """Notes the start of each run of the graph."""

    run_inline = True

    def __init__(self, order: list[str]) -> None:
        self.order = order

    async def on_chain_start(self, serialized, inputs, *, parent_run_id=None, **more) -> None:
        if parent_run_id is None:
            self.order.append("start")


async def test_the_first_runs_requests_are_sent_before_the_last_runs_begin(monkeypatch):
    # On a busy machine, a step of the loop may take so long that several runs begin at once.
    monkeypatch.setattr(starts, "_LONGEST", 60)
    monkeypatch.setattr(starts, "_FOR_EACH", 60)
    order: list[str] = []
    moa = create_moa([noting(order), noting(order)], RunnableLambda(lambda _: AIMessage("x")))
    questions = [f"run-{number:02}" for number in range(RUNS)]
    config = {"callbacks": [Starts(order)]}
    await asyncio.gather(*(moa.ainvoke({"messages": q}, config) for q in questions))
    assert [one for one in order if one != "start"] == [q for q in questions for _ in range(2)]
    for number, question in enumerate(questions):
        assert order[: order.index(question)].count("start") <= number + 2


@pytest.mark.parametrize("way", ["abatch", "chat model", "astream", "nested"])
async def test_every_run_gets_its_answer(way):
    moa = create_moa([noting([], 0.01)], RunnableLambda(lambda m: AIMessage(asked(m))))
    questions = [f"run-{number:02}" for number in range(RUNS)]

    async def streamed(question: str) -> dict:
        return [part async for part in moa.astream({"messages": question})][-1]["aggregator"]

    if way == "chat model":
        answers = [a.text for a in await ChatMoA(graph=moa).abatch(questions)]
    elif way == "astream":
        states = await asyncio.gather(*map(streamed, questions))
        answers = [state["messages"][-1].text for state in states]
    else:
        graph = create_moa([moa], RunnableLambda(lambda m: AIMessage(asked(m))))
        graph = graph if way == "nested" else moa
        states = await graph.abatch([{"messages": q} for q in questions])
        answers = [state["messages"][-1].text for state in states]
    assert answers == questions


async def test_a_run_that_is_cancelled_while_it_waits_holds_up_nobody():
    order: list[str] = []
    moa = create_moa([noting(order, 0.01)], RunnableLambda(lambda _: AIMessage("x")))
    tasks = [asyncio.create_task(moa.ainvoke({"messages": str(n)})) for n in range(RUNS)]
    await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in ended] == [False, True] * (RUNS // 2)
    assert order == [str(n) for n in range(0, RUNS, 2)]


async def test_a_run_waits_for_no_other_runs_models_or_for_a_busy_loop():
    async def never(messages) -> AIMessage:
        await asyncio.sleep(60)
        return AIMessage("x")

    async def busy() -> None:
        while True:
            await asyncio.sleep(0)
            sum(range(200_000))  # a step of some milliseconds

    slow = create_moa([RunnableLambda(never)], RunnableLambda(never))
    hanging = [asyncio.create_task(slow.ainvoke({"messages": "hi"})) for _ in range(RUNS)]
    load = asyncio.create_task(busy())
    order: list[str] = []
    moa = create_moa([noting(order, 0)], RunnableLambda(lambda _: AIMessage("x")))
    async with asyncio.timeout(30):
        await moa.ainvoke({"messages": "hi"})
    for task in (load, *hanging):
        task.cancel()
    await asyncio.gather(load, *hanging, return_exceptions=True)
    assert order == ["hi"]


async def test_on_a_busy_loop_several_runs_begin_in_each_step():
    steps = 0

    async def busy() -> None:
        nonlocal steps
        while True:
            await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - keeps the loop busy on purpose
            steps += 1

    async def start() -> int:
        await wait_for_turn()
        return steps

    load = asyncio.create_task(busy())
    runs = 100
    started = await asyncio.gather(*(start() for _ in range(runs)))
    load.cancel()
    assert max(started) <= runs / 4


def test_a_loop_that_is_closed_while_runs_wait_is_freed():
    async def leave() -> None:
        waiting.extend(asyncio.ensure_future(wait_for_turn()) for _ in range(RUNS))
        await asyncio.sleep(0)

    waiting: list[asyncio.Future] = []
    loops = []
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loops.append(weakref.ref(loop))
        for task in waiting:
            task._log_destroy_pending = False
        waiting.clear()
        loop.close()
        del loop, task
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1, "closed loops are forgotten"


def test_every_event_loop_has_its_own_order():
    moa = create_moa([noting([], 0.01)], RunnableLambda(lambda _: AIMessage("x")))
    ended: list[int] = []

    async def all_of_them() -> weakref.ref:
        states = await moa.abatch([{"messages": "hi"}] * RUNS)
        ended.append(len(states))
        return weakref.ref(asyncio.get_running_loop())

    loops: list[weakref.ref] = []
    threads = [
        threading.Thread(target=lambda: loops.append(asyncio.run(all_of_them()))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loops.append(asyncio.run(all_of_them()))
    assert ended == [RUNS] * 4
    del threads
    gc.collect()
    assert all(loop() is None for loop in loops), "closed loops are kept"


async def test_a_loop_that_was_stopped_within_a_turn_goes_on_afterwards():
    moa = create_moa([noting([], 0)], RunnableLambda(lambda _: AIMessage("x")))

    def in_a_loop() -> list[str]:
        loop = asyncio.new_event_loop()
        try:
            task = loop.create_task(moa.ainvoke({"messages": "one"}))
            loop.call_soon(loop.stop)
            loop.run_forever()
            more = [loop.run_until_complete(moa.ainvoke({"messages": "two"})) for _ in range(2)]
            return [s["messages"][-1].text for s in (loop.run_until_complete(task), *more)]
        finally:
            loop.close()

    assert await asyncio.to_thread(in_a_loop) == ["x", "x", "x"]
