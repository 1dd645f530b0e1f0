from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from moa_graph import (
    ChatMoA,
    Layer,
    MoAContext,
    NotEnoughProposals,
    Proposer,
    RunLimits,
    create_moa,
)
from moa_graph.calling.waiting import LayerWait, Quorum
from tests.fake_server import eventually
from tests.mixtures import mixture_of
from tests.nodes.test_nodes import MODES, run

QUESTION = {"messages": "What is a cat?"}
ROOT = Path(__file__).parents[2]


def statuses(state) -> dict[str, str]:
    return {p["proposer"]: p["status"] for p in state["proposals"]}


def six(chat, late: str = "late?hang") -> list:
    return [chat(f"p{i}?latency=0.{i}") for i in range(1, 6)] + [Proposer(chat(late), name="late")]


# --- quorum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_a_hung_proposer_is_cancelled_a_grace_after_the_quorum(chat, server, mode):
    graph = create_moa(Layer(six(chat), quorum=5, grace=0.3), chat("agg"))
    state = await run(graph, mode, QUESTION)
    answered = {p["proposer"]: p for p in state["proposals"] if p["status"] == "ok"}
    assert len(answered) == 5
    late = next(p for p in state["proposals"] if p["proposer"] == "late")
    assert (late["status"], late["content"], late["attempts"]) == ("abandoned", "", 1)
    assert "5 answers" in late["error"]
    # As long as the fifth takes, and the grace; the rest is the machine's.
    fifth = max(p["latency"] for p in answered.values())
    assert 0.3 <= late["latency"] - fifth < 1.2
    hung, aggregator = server.of("late")[0], server.of("agg")[0]
    await eventually(lambda: all(c.disconnected for c in server.of("late")), 1)
    assert hung.ended - max(c.ended for c in server.calls if c.label[0] == "p") < 1.3
    assert "late:" not in aggregator.system


async def test_who_answers_within_the_grace_is_not_abandoned(chat, server):
    graph = create_moa(
        Layer([chat("a"), chat("b?latency=0.3"), chat("c?hang")], quorum=1, grace=1.0), chat("agg")
    )
    assert list(statuses(await graph.ainvoke(QUESTION)).values()) == ["ok", "ok", "abandoned"]


async def test_a_failed_proposal_does_not_count(chat, server):
    models = [chat("bad?status=400"), chat("a"), chat("b?latency=0.4"), chat("c?hang")]
    state = await create_moa(Layer(models, quorum=2), chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["failed", "ok", "ok", "abandoned"]


async def test_without_enough_answers_all_are_waited_for(chat, server):
    models = [chat("a?status=400"), chat("b?status=400"), chat("c?latency=0.3")]
    state = await create_moa(Layer(models, quorum=2), chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["failed", "failed", "ok"]


@pytest.mark.parametrize("cut", [{"quorum": 2}, {"timeout": 0.2}, {"min_proposals": 2}])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_the_next_layer_does_not_wait_until_late_calls_are_closed(mode, cut):
    order: list[str] = []

    async def slow_to_close(messages):
        try:
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(0.5)
            order.append("closed")

    def answering(name: str) -> RunnableLambda:
        def answer(messages):
            order.append(name)
            return f"{name} answers"

        return RunnableLambda(answer, name=name)

    # Alone, the proposer's own timeout cuts it.
    late = Proposer(RunnableLambda(slow_to_close), timeout=0.2 if "min_proposals" in cut else None)
    moa = create_moa(
        Layer([answering("a"), answering("b"), late], **{"min_proposals": 1, **cut}),
        answering("agg"),
    )
    state = await run(moa, mode, QUESTION)
    assert state["messages"][-1].text == "agg answers"
    await eventually(lambda: "closed" in order)
    assert order == ["a", "b", "agg", "closed"]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_each_layer_has_its_own_quorum(chat, server, mode):
    models = [chat("a"), chat("b?latency=0.1"), Proposer(chat("late?hang"), name="late")]
    state = await run(create_moa(Layer(models, quorum=2), chat("agg"), layers=4), mode, QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok", "abandoned"] * 3
    assert len(server.of("late")) == 3


@pytest.mark.full
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_many_runs_at_once_do_not_touch_each_others_layers(chat, server, mode):
    """Each run has another proposer that is fast: its own two decide, and no other's."""

    def proposer(name: str):
        async def answer(messages):
            fast = messages[-1].text.split()
            await asyncio.sleep(0.1 if name in fast else 30)
            return AIMessage(f"{name}: {messages[-1].text}")

        return Proposer(RunnableLambda(answer), name=name)

    names = [f"p{i}" for i in range(8)]
    graph = create_moa(Layer([proposer(n) for n in names], quorum=2), chat("agg"), layers=3)
    pairs = [f"{names[i % 8]} {names[(i + 3) % 8]}" for i in range(40)]
    given = [{"messages": pair} for pair in pairs]
    if mode == "sync":
        states = await asyncio.to_thread(graph.batch, given)
    else:
        states = await graph.abatch(given)
    for pair, state in zip(pairs, states, strict=True):
        ok = {(p["layer"], p["proposer"]) for p in state["proposals"] if p["status"] == "ok"}
        assert ok == {(layer, name) for layer in (1, 2) for name in pair.split()}
        assert all(pair in p["content"] for p in state["proposals"] if p["status"] == "ok")
    assert len(graph.builder.nodes["aggregator"].runnable.plan.runs) == 0


async def test_forks_of_one_checkpoint_at_once_are_runs_of_their_own(chat, server):
    models = [chat("a?latency=0.2"), chat("b?latency=0.3"), chat("c?hang")]
    graph = create_moa(Layer(models, quorum=2), chat("agg"), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(QUESTION, thread)
    *_, first = graph.get_state_history(thread)
    start = next(
        s for s in graph.get_state_history(thread) if s.next and "aggregator" not in s.next
    )
    assert start.config != first.config
    states = await asyncio.gather(*(graph.ainvoke(None, start.config) for _ in range(4)))
    assert [list(statuses(s).values()) for s in states] == [["ok", "ok", "abandoned"]] * 4


async def test_a_quorum_inside_chains_nodes_and_chat_models(chat, server):
    graph = create_moa(Layer(six(chat), quorum=5), chat("agg"))
    parent = StateGraph(MessagesState).add_node("moa", graph).add_edge(START, "moa").compile()
    model = ChatMoA(graph=graph)
    started = time.monotonic()
    assert (await parent.ainvoke(QUESTION))["messages"][-1].text.startswith("agg")
    assert "".join([c.text async for c in model.astream("hi")]) == "agg: hi"
    assert (await asyncio.to_thread(model.invoke, "hi")).text == "agg: hi"
    assert (await asyncio.to_thread(parent.invoke, QUESTION))["messages"][-1].text
    assert time.monotonic() - started < 12
    await eventually(lambda: all(c.disconnected for c in server.of("late")), 1)


@pytest.mark.parametrize("mode", ["invoke", "stream"])
def test_the_process_exits_promptly_after_a_synchronous_run(server, mode):
    script = f"""
        from langchain_openai import ChatOpenAI
        from moa_graph import Layer, create_moa

        def chat(model):
            return ChatOpenAI(model=model, base_url={server.url!r}, api_key="x")

        graph = create_moa(
            Layer([chat("a"), chat("b"), chat("late?hang")], quorum=2), chat("agg")
        )
        given = {{"messages": "hi"}}
        if {mode!r} == "invoke":
            print(graph.invoke(given)["messages"][-1].text)
        else:
            *_, state = graph.stream(given, stream_mode="values")
            print(state["messages"][-1].text)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("agg: hi\n", 0), done.stderr
    assert "Error" not in done.stderr


def test_a_synchronous_model_that_hangs_keeps_neither_the_run_nor_the_process(server):
    script = f"""
        import time
        from langchain_core.runnables import RunnableLambda
        from langchain_openai import ChatOpenAI
        from moa_graph import Layer, create_moa

        chat = ChatOpenAI(model="a", base_url={server.url!r}, api_key="x")
        late = RunnableLambda(lambda messages: time.sleep(60))
        graph = create_moa(Layer([chat, late], quorum=1), chat)
        print([p["status"] for p in graph.invoke({{"messages": "hi"}})["proposals"]])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("['ok', 'abandoned']\n", 0), done.stderr


async def test_synchronous_and_asynchronous_runs_share_models(chat, server):
    """A client's connections belong to the event loop that opened them."""
    graph = create_moa(Layer([chat("a"), chat("b"), chat("c?latency=0.4")], quorum=2), chat("agg"))
    for _ in range(3):
        for mode in ("invoke", "ainvoke"):
            state = await run(graph, mode, QUESTION)
            assert [p["error"] for p in state["proposals"][:2]] == [None, None]


async def test_a_run_that_is_cancelled_ends_its_requests(chat, server):
    graph = create_moa(Layer(six(chat), quorum=5, hedge=0.1), chat("agg"))
    task = asyncio.create_task(graph.ainvoke(QUESTION))
    await eventually(lambda: len(server.of("late")) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: all(c.disconnected for c in server.of("late")), 1)


class Endless(GenericFakeChatModel):
    """Waits for its pieces as LangChain's OpenAI client does: in `asyncio.wait_for`."""

    shortly_before: Callable[[], None]
    """Called before the third piece."""
    ticks: int
    """How many turns of the event loop before."""
    given: int = 0

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        while self.given < 200:
            await asyncio.wait_for(self._piece(), timeout=60)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))

    async def _piece(self):
        await asyncio.sleep(0.005)
        self.given += 1
        if self.given == 3:
            asyncio.get_running_loop().call_soon(self.shortly_before)
            for _ in range(self.ticks):
                await asyncio.sleep(0)


@pytest.mark.parametrize("ticks", range(10))
@pytest.mark.parametrize("writer", ["proposer", "aggregator"])
async def test_a_cancellation_that_comes_together_with_a_piece_is_not_lost(chat, writer, ticks):
    """Python 3.11 forgets it there."""

    def cancel():
        task.cancel()

    endless = Endless(messages=iter([]), shortly_before=cancel, ticks=ticks)
    models = [chat("a"), endless] if writer == "aggregator" else [endless, chat("agg")]
    graph = create_moa([models[0], chat("b")], models[1], stream_proposals=True)

    async def answer():
        async for _ in graph.astream(QUESTION, stream_mode="messages"):
            pass

    task = asyncio.create_task(answer())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endless.given < 10


# --- deadlines -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_a_proposer_that_takes_too_long_is_timed_out(chat, server, mode):
    late = Proposer(chat("late?hang"), timeout=0.5)
    state = await run(create_moa([chat("a"), late], chat("agg")), mode, QUESTION)
    proposal = state["proposals"][1]
    assert (proposal["status"], proposal["content"]) == ("timed_out", "")
    assert "0.5 s" in proposal["error"]
    assert 0.5 <= proposal["latency"] < 1.5
    await eventually(lambda: all(c.disconnected for c in server.of("late")), 1)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_layer_that_takes_too_long_goes_on_with_what_it_has(chat, server, mode):
    models = [chat("a"), chat("b?latency=0.2"), chat("c?hang"), chat("d?hang")]
    graph = create_moa(Layer(models, timeout=0.8), chat("agg"), layers=3)
    state = await run(graph, mode, QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok", "timed_out", "timed_out"] * 2
    assert "the layer's timeout" in state["proposals"][2]["error"]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_run_that_takes_too_long_answers_from_what_it_has(chat, server, mode):
    layers = [[chat("a"), chat("b?hang")], [chat("c?hang"), chat("d?hang")]]
    started = time.monotonic()
    state = await run(create_moa(layers, chat("agg"), limits=RunLimits(timeout=3)), mode, QUESTION)
    assert time.monotonic() - started < 3.5
    assert [p["status"] for p in state["proposals"]] == ["ok", "timed_out"] + ["timed_out"] * 2
    assert "the run's 3 s" in state["proposals"][1]["error"]
    assert "1. a: What is a cat?" in server.of("agg")[0].system


async def test_when_nothing_is_in_time_the_run_says_so(chat, server):
    graph = create_moa(Layer([chat("a?hang"), chat("b?hang")], timeout=0.3), chat("agg"))
    with pytest.raises(NotEnoughProposals, match="the layer's timeout") as caught:
        await graph.ainvoke(QUESTION)
    assert [p["status"] for p in caught.value.proposals] == ["timed_out"] * 2
    assert not server.of("agg")


async def test_a_retry_that_would_come_too_late_is_not_waited_for(chat, server):
    late = Proposer(chat("busy?status=429&retry_after=20"), timeout=5)
    state = await create_moa([chat("a"), late], chat("agg")).ainvoke(QUESTION)
    assert state["proposals"][1]["status"] == "failed"
    assert state["proposals"][1]["latency"] < 2


# --- hedging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_late_proposer_is_asked_again_and_the_first_answer_wins(chat, server, mode):
    models = [chat("a"), Proposer(chat("late?slow_first=30"), name="late")]
    graph = create_moa(Layer(models, hedge=0.3), chat("agg"))
    state = await run(graph, mode, QUESTION)
    late = state["proposals"][1]
    assert (late["status"], late["content"]) == ("ok", "late: What is a cat?")
    assert late["attempts"] == 2
    assert late["latency"] < 2
    first, second = server.of("late")
    assert not second.disconnected
    await eventually(lambda: first.disconnected, 1)
    assert len(server.of("a")) == 1


async def test_late_may_be_a_multiple_of_the_layers_median(chat, server):
    models = [chat(f"p{i}?latency=0.2") for i in range(3)] + [chat("late?slow_first=30")]
    state = await create_moa(Layer(models, hedge="3x"), chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok"] * 4
    first, second = server.of("late")
    assert 0.4 < second.started - first.started < 2
    assert [p["attempts"] for p in state["proposals"]] == [1, 1, 1, 2]


async def test_a_graph_is_not_asked_twice(chat, server):
    agent = create_agent(chat("late?latency=0.6"), tools=[])
    models = [chat("a"), Proposer(agent, name="agent")]
    state = await create_moa(Layer(models, hedge=0.1), chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok"]
    assert len(server.of("late")) == 1


async def test_when_both_requests_fail_the_proposal_has_failed(chat, server):
    models = [chat("a"), chat("late?latency=0.4&status=400")]
    state = await create_moa(Layer(models, hedge=0.1), chat("agg")).ainvoke(QUESTION)
    assert state["proposals"][1]["status"] == "failed"
    assert len(server.of("late")) == 2


# --- per run, and bad values -----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_run_has_its_own_quorum_and_deadlines(chat, server, mode):
    graph = create_moa([chat("a"), chat("b?latency=0.1"), chat("c?hang")], chat("agg"))
    for context, status in (
        ({"quorum": 2, "grace": 0.1}, "abandoned"),
        ({"timeout": 0.5}, "timed_out"),
        (MoAContext(run_timeout=1.5), "timed_out"),
    ):
        state = await run(graph, mode, QUESTION, context=context)
        assert [p["status"] for p in state["proposals"]] == ["ok", "ok", status]


@pytest.mark.parametrize("context", [{"quorum": 4}, {"quorum": 0}, {"timeout": -1}])
async def test_a_run_with_a_bad_value_calls_nobody(chat, server, context):
    graph = create_moa([chat("a"), chat("b"), chat("c")], chat("agg"))
    with pytest.raises(ValueError, match=r"quorum|timeout"):
        await graph.ainvoke(QUESTION, context=context)
    assert not server.calls


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quorum": 3}, r"quorum=3\) must be between 1"),
        ({"quorum": 0}, "at least 1"),
        ({"quorum": -1}, "at least 1"),
        ({"quorum": 1, "min_proposals": 2}, "between 2"),
        ({"quorum": True}, r"Layer\(quorum=True\) must be an integer"),
        ({"quorum": 1.5}, r"Layer\(quorum=1.5\) must be an integer"),
        ({"quorum": "2"}, r"Layer\(quorum='2'\) must be an integer"),
        ({"quorum": 2, "grace": -0.1}, r"Layer\(grace=-0.1\) must be at least 0"),
        ({"quorum": 2, "grace": math.inf}, r"Layer\(grace=inf\) must be finite"),
        ({"quorum": 2, "grace": "1"}, r"Layer\(grace='1'\) must be a number"),
        ({"grace": 1}, r"Layer\(grace=…\) needs quorum"),
        ({"hedge": 0}, r"Layer\(hedge=0\) must be above 0"),
        ({"hedge": -1}, r"Layer\(hedge=-1\) must be above 0"),
        ({"hedge": True}, r"Layer\(hedge=True\) must be seconds"),
        ({"hedge": "soon"}, "2x"),
        ({"hedge": "0x"}, "2x"),
        ({"timeout": 0}, r"Layer\(timeout=0\) must be above 0"),
        ({"timeout": -1.0}, r"Layer\(timeout=-1.0\) must be above 0"),
        ({"timeout": math.nan}, r"Layer\(timeout=nan\) must be finite"),
        ({"run_timeout": math.inf}, r"RunLimits\(timeout=inf\) must be finite"),
        ({"run_timeout": "10"}, r"RunLimits\(timeout='10'\) must be a number"),
        ({"retries": -1}, r"CallPolicy\(retries=-1\) must be at least 0"),
        ({"retries": 1.5}, r"CallPolicy\(retries=1.5\) must be an integer"),
        ({"window": 0}, r"References\(window=0\) must be at least 1"),
        ({"concurrent": {"openai": 0}}, "at least 1"),
        ({"concurrent": {"ollama": 1}}, "'ollama'"),
        ({"concurrent": 4}, r"CallPolicy\(concurrent=4\) must be a mapping"),
        ({"limits": 1000}, "must be a RunLimits"),
    ],
)
def test_bad_values_are_refused_when_the_graph_is_built(chat, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        mixture_of([chat("a"), chat("b")], chat("agg"), **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Proposer("openai:x", timeout=0), "timeout"),
        (lambda: Proposer("openai:x", timeout=-2), "timeout"),
        (lambda: Proposer("openai:x", timeout="2"), "timeout"),
    ],
)
def test_bad_values_are_refused_where_they_are_made(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()


def test_a_hedge_needs_a_model_that_can_be_called_twice(chat):
    agents = [Proposer(create_agent(chat(n), tools=[]), name=n) for n in "ab"]
    with pytest.raises(ValueError, match="needs a chat model"):
        create_moa(Layer(agents, hedge=1), chat("agg"))
    create_moa(Layer([*agents, chat("c")], hedge=1), chat("agg"))


# --- the layer by itself ---------------------------------------------------------------------


async def test_who_comes_after_the_end_is_not_asked():
    layer = LayerWait(3, Quorum(1))
    layer.answered(0, 0.1)
    with pytest.raises(Exception, match="not called"):
        layer.check_open()


async def test_a_request_that_will_not_end_does_not_keep_the_layer():
    async def stubborn():
        for _ in range(20):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                continue

    started = time.monotonic()
    with pytest.raises(Exception, match="no answer within"):
        await LayerWait(1).first_answer(stubborn, timeout=0.1)
    assert time.monotonic() - started < 2
