"""Processes that are killed in the middle of a run, and what it costs to go on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import Layer, Proposer, create_moa
from tests.fake_server import FakeServer, eventually
from tests.integration.runner import LAYERS, build, saver

ROOT = Path(__file__).parents[2]
PROPOSERS = {label for layer in LAYERS for label in layer}
LONGEST = 1.1  # seconds that a run takes
AT_ONCE = 5


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.integration.runner"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        yield process
        process.stdin.close()
        process.wait(10)


async def kill_and_resume(
    runner: subprocess.Popen[str], server: FakeServer, store: str, thread: str, moment: float
) -> str:
    """One run that is killed after `moment` seconds, then resumed; says how far it had come."""
    mode = random.choice(["invoke", "ainvoke"])
    order = {"url": server.url, "store": store, "thread": thread, "mode": mode}
    runner.stdin.write(json.dumps(order) + "\n")
    runner.stdin.flush()
    process = int(runner.stdout.readline())
    await asyncio.sleep(moment)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)

    def calls() -> Counter[str]:
        question = f"question {thread}"
        mine = [c for c in server.calls if c.messages[-1]["content"] == question]
        return Counter(c.label for c in mine)

    await asyncio.sleep(0.3)  # what was sent before may still be on its way
    before = calls()
    with saver(store) as opened:
        graph = build(server.url, opened)
        config = {"configurable": {"thread_id": thread}}
        checkpoint = opened.get_tuple(config)
        known = graph.get_state(config).values.get("proposals", [])
        stored = {p["proposer"].partition("?")[0] for p in known}
        for _, channel, value in (checkpoint.pending_writes if checkpoint else None) or []:
            if channel == "proposals":
                stored |= {p["proposer"].partition("?")[0] for p in value}
        given = None if checkpoint else {"messages": f"question {thread}"}
        state = await asyncio.to_thread(graph.invoke, given, config)
    assert {p["proposer"].partition("?")[0] for p in state["proposals"]} == PROPOSERS
    assert len(state["proposals"]) == len(PROPOSERS)
    assert all(p["status"] == "ok" for p in state["proposals"])
    assert state["messages"][-1].text == f"x: question {thread}"
    again = calls() - before
    assert not stored & set(again), "a proposer whose answer was stored was called again"
    assert all(count == 1 for count in again.values())
    assert set(again) | set(before) >= PROPOSERS
    return f"{len(stored)} stored, {sum(before.values())} called"


async def many(runner, server, store: str, times: int) -> Counter[str]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with gate:
            moment = random.uniform(0.05, LONGEST)
            return await kill_and_resume(runner, server, store, f"{store[-9:]}-{number}", moment)

    return Counter(await asyncio.gather(*(one(number) for number in range(times))))


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.full)])
async def test_killed_with_sqlite_at_many_moments(runner, server, tmp_path, times):
    store = str(tmp_path / "threads.sqlite")
    with saver(store) as opened:
        opened.setup()
    moments = await many(runner, server, store, times)
    assert len(moments) > (4 if times == 50 else 0), f"the moments were all alike: {moments}"


@pytest.mark.full
async def test_killed_with_postgres_at_ten_moments(runner, server, postgres):
    with saver(postgres) as opened:
        opened.setup()
    await many(runner, server, postgres, 10)


@pytest.mark.parametrize("layers", [2, 3])
async def test_a_resumed_layer_counts_what_was_answered_before(chat, server, layers):
    """Two of three for the quorum were answered before the run was stopped."""
    models = [chat("a"), chat("b"), chat("c?hang&times=1"), Proposer(chat("d?hang"), name="d")]
    graph = create_moa(
        Layer(models, quorum=3), chat("agg"), layers=layers, checkpointer=InMemorySaver()
    )
    thread = {"configurable": {"thread_id": "1"}}
    task = asyncio.create_task(graph.ainvoke({"messages": "hi"}, thread))
    await eventually(lambda: len(server.calls) == 4)
    await eventually(lambda: all(c.ended for c in server.of("a") + server.of("b")))
    await asyncio.sleep(0.2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    before = len(server.calls)
    async with asyncio.timeout(10):
        state = await graph.ainvoke(None, thread)
    first = [p["status"] for p in state["proposals"] if p["layer"] == 1]
    assert first == ["ok", "ok", "ok", "abandoned"]
    assert [c.label for c in server.calls[before : before + 2]] == ["c", "d"]
    assert len(server.of("a")) == layers - 1
