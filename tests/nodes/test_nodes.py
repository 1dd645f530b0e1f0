"""What a run does: who is called, with what, and what happens when a model fails."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
import traceback

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import FakeListLLM, FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Overwrite, interrupt

from moa_graph import (
    AggregationFailed,
    CallPolicy,
    Layer,
    MoAContext,
    MoAError,
    NotEnoughProposals,
    Proposer,
    create_moa,
)
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE, format_references
from moa_graph.state import total_usage
from tests.fake_server import eventually

QUESTION = {"messages": "What is a cat?"}


async def run(graph, mode: str, given, config=None, **kwargs):
    """The final state, by whichever way of running a graph."""
    if mode == "invoke":
        return await asyncio.to_thread(graph.invoke, given, config, **kwargs)
    if mode == "ainvoke":
        return await graph.ainvoke(given, config, **kwargs)
    if mode == "stream":
        return (await asyncio.to_thread(_all, graph, given, config, kwargs))[-1]
    if mode == "astream":
        kwargs["stream_mode"] = "values"
        return [state async for state in graph.astream(given, config, **kwargs)][-1]
    if mode == "batch":
        return (await asyncio.to_thread(graph.batch, [given, given], config, **kwargs))[1]
    return (await graph.abatch([given, given], config, **kwargs))[1]


def _all(graph, given, config, kwargs):
    return list(graph.stream(given, config, stream_mode="values", **kwargs))


MODES = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]


# --- who is called, with what ---------------------------------------------------------------


async def test_layers_run_in_order_proposers_at_once_and_the_aggregator_last(chat, server):
    graph = create_moa([chat(f"{p}?latency=0.5") for p in "abcdefgh"], chat("agg"), layers=3)
    for mode in ("invoke", "ainvoke"):
        server.reset()
        await run(graph, mode, QUESTION)
        first, second, last = server.calls[:8], server.calls[8:16], server.calls[16:]
        assert sorted(c.label for c in first) == sorted(c.label for c in second) == [*"abcdefgh"]
        assert [c.label for c in last] == ["agg"]
        for layer, after in ((first, second), (second, last)):
            # All were under way before any had ended, and none of the next before all had.
            assert max(c.started for c in layer) < min(c.ended for c in layer)
            assert max(c.ended for c in layer) <= min(c.started for c in after)


async def test_messages_are_the_papers_whatever_the_order_of_arrival(chat, server):
    graph = create_moa(
        [chat("slow?latency=0.15"), chat("mid?latency=0.07"), chat("fast")], chat("agg"), layers=3
    )
    server.answers |= {"slow": "One {curly}.", "mid": "Two\nlines.", "fast": "3"}
    await graph.ainvoke(QUESTION)
    user = {"role": "user", "content": "What is a cat?"}
    references = format_references(["One {curly}.", "Two\nlines.", "3"])
    for call in server.calls[:3]:
        assert call.messages == [user]
    for call in server.calls[3:]:
        assert call.messages == [{"role": "system", "content": references}, user]


async def test_each_layer_sees_only_the_layer_directly_before(chat, server):
    graph = create_moa([[chat("a")], [chat("b")], [chat("c")]], chat("agg"))
    server.answers |= {"a": "from a", "b": "from b", "c": "from c"}
    await graph.ainvoke(QUESTION)
    assert [call.system.removeprefix(AGGREGATE_AND_SYNTHESIZE) for call in server.calls] == [
        "",
        "\n1. from a",
        "\n1. from b",
        "\n1. from c",
    ]


async def test_a_role_is_added_to_its_own_calls_and_a_system_message_is_extended(chat, server):
    critic = Proposer(chat("critic"), prompt="Look for errors.")
    graph = create_moa([chat("plain"), critic], chat("agg"), layers=3)
    await graph.ainvoke({"messages": [SystemMessage("Be brief."), HumanMessage("hi")]})
    plain, other = server.of("plain"), server.of("critic")
    assert [c.system for c in (plain[0], other[0])] == [
        "Be brief.",
        "Be brief.\n\nLook for errors.",
    ]
    references = format_references(["plain: hi", "critic: hi"])
    assert plain[1].system == f"Be brief.\n\n{references}"
    assert other[1].system == f"Be brief.\n\nLook for errors.\n\n{references}"
    assert server.of("agg")[0].system == f"Be brief.\n\n{references}"


def _as_kinds(chat, label):
    def double(question: str) -> str:
        """Double it."""
        return question * 2

    prompt = ChatPromptTemplate([("system", "P."), MessagesPlaceholder("messages")])
    optional = ChatPromptTemplate([("system", "P."), ("placeholder", "{messages}")])
    return {
        "chat model": chat(label),
        "fallbacks": chat("down?status=500").with_fallbacks([chat(label)]),
        "retry": chat(f"{label}?fail_first=1").with_retry(wait_exponential_jitter=False),
        "config": chat(label).with_config(tags=["mine"]),
        "bound": chat(label).bind(temperature=0.1),
        "prompt": prompt | chat(label),
        "optional placeholder": optional | chat(label),
        "prompt of a text": PromptTemplate.from_template("Q: {question}") | chat(label),
        "parsed to text": chat(label) | RunnableLambda(lambda message: message.text),
        "agent": create_agent(chat(label), tools=[double]),
        "agent or model": create_agent(chat("down?status=500"), tools=[]).with_fallbacks(
            [chat(label)]
        ),
        "model or agent": chat("down?status=500").with_fallbacks(
            [create_agent(chat(label), tools=[])]
        ),
        "text model": FakeListLLM(responses=[f"{label}: What is a cat?"] * 9),
        "alternatives": chat(label).configurable_alternatives(
            ConfigurableField(id="which"), other=chat("never")
        ),
        "function": RunnableLambda(lambda messages: f"{label}: {messages[-1].text}"),
        "mixture": create_moa([chat("inner")], chat(label)),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", ["proposer", "aggregator"])
@pytest.mark.parametrize(
    "kind",
    [
        "chat model",
        "fallbacks",
        "retry",
        "config",
        "bound",
        "prompt",
        "optional placeholder",
        "prompt of a text",
        "parsed to text",
        "agent",
        "agent or model",
        "model or agent",
        "text model",
        "alternatives",
        "function",
        "mixture",
    ],
)
async def test_every_kind_of_model_works_everywhere(chat, server, kind, place, mode):
    model = _as_kinds(chat, "special")[kind]
    proposer, aggregator = (model, chat("plain")) if place == "proposer" else (chat("plain"), model)
    state = await run(create_moa([proposer], aggregator), mode, QUESTION)
    (proposal,) = state["proposals"]
    assert proposal["status"] == "ok"
    answers = {"proposer": proposal["content"], "aggregator": state["messages"][-1].text}
    assert answers[place].startswith("special: ")
    assert "What is a cat?" in answers[place]
    assert len(state["messages"]) == 2


async def test_model_strings_are_built_by_their_provider(server, monkeypatch):
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    graph = create_moa(["together:Qwen/Qwen2.5-7B", "openai:gpt-5"], "together:agg")
    state = await graph.ainvoke(QUESTION)
    assert [(p["proposer"], p["model"]) for p in state["proposals"]] == [
        ("Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("gpt-5", "gpt-5"),
    ]
    assert {c.model: c.key for c in server.calls}["Qwen/Qwen2.5-7B"] == "tgp-0123456789"


@pytest.mark.parametrize("variable", ["TOGETHER_API_BASE", "TOGETHER_BASE_URL"])
async def test_another_server_can_take_togethers_place(server, monkeypatch, variable):
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv(variable, server.url)
    await create_moa(["together:a"], "together:agg").ainvoke(QUESTION)
    assert server.labels() == ["a", "agg"]


async def test_a_missing_key_is_told_before_any_call_and_found_when_set_later(
    chat, server, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-together")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    graph = create_moa([chat("a")], "together:agg")
    for mode in ("invoke", "ainvoke"):
        with pytest.raises(MoAError, match=r"aggregator.*TOGETHER_API_KEY"):
            await run(graph, mode, QUESTION)
    assert server.calls == []
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    assert (await graph.ainvoke(QUESTION))["messages"][-1].text == "agg: What is a cat?"


# --- context ---------------------------------------------------------------------------------


async def test_context_tunes_a_run(chat, server):
    graph = create_moa([chat("a"), chat("b").with_retry()], chat("agg"), layers=4)
    context = MoAContext(
        proposer_temperature=0.9,
        proposer_max_tokens=11,
        aggregator_temperature=0,
        aggregator_max_tokens=22,
        aggregation_prompt="Combine:",
        layers=3,
    )
    state = await graph.ainvoke(QUESTION, context=context)
    assert sorted(server.labels()) == ["a", "a", "agg", "b", "b"]
    limits = {"a": (0.9, 11), "b": (0.9, 11), "agg": (0.0, 22)}
    for call in server.calls:
        assert (call.body["temperature"], call.body["max_completion_tokens"]) == limits[call.label]
    assert server.of("agg")[0].system == "Combine:\n1. a: What is a cat?\n2. b: What is a cat?"
    assert {p["layer"] for p in state["proposals"]} == {1, 2}


@pytest.mark.parametrize(
    "context", [{"layers": 1}, {"layers": 4}, {"proposer_temperature": 3}, {"base_url": "x"}]
)
@pytest.mark.parametrize("mode", MODES)
async def test_a_wrong_context_is_refused_before_any_call(chat, server, context, mode):
    with pytest.raises(ValueError, match=r"layers|temperature|base_url"):
        await run(create_moa([chat("a")], chat("agg"), layers=3), mode, QUESTION, context=context)
    assert server.calls == []


async def test_a_context_is_not_meant_for_a_mixture_inside(chat, server):
    inner = create_moa([chat("in")], chat("inner"))
    graph = create_moa([inner], chat("agg"), layers=3)
    await graph.ainvoke(QUESTION, context={"layers": 3, "aggregation_prompt": "Combine:"})
    assert server.of("inner")[0].system == format_references(["in: What is a cat?"])
    assert server.of("agg")[0].system.startswith("Combine:")


# --- input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("messages", [[], "", "  ", [SystemMessage("x")], [AIMessage("x")]])
async def test_a_conversation_without_a_question_is_refused_before_any_call(
    chat, server, messages, mode
):
    with pytest.raises(ValueError, match="message"):
        await run(create_moa([chat("a"), chat("b")], chat("agg")), mode, {"messages": messages})
    assert server.calls == []


async def test_a_prompt_can_come_before_the_graph(chat):
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "What is a {thing}?")])
    chain = prompt | create_moa([chat("a")], chat("agg"))
    for mode in ("invoke", "ainvoke", "batch"):
        state = await run(chain, mode, {"thing": "dog"})
        assert state["messages"][-1].text == "agg: What is a dog?"


async def test_a_parent_graph_with_its_own_state_and_context(chat, server):
    class ParentContext:
        layers = "not yours"

    for context in (ParentContext(), {"user": "ada"}):
        parent = StateGraph(MessagesState, type(context))
        parent.add_node("moa", create_moa([chat("a")], chat("agg"), layers=3))
        parent.add_edge(START, "moa")
        for mode in ("invoke", "ainvoke", "astream"):
            state = await run(parent.compile(), mode, QUESTION, context=context)
            assert set(state) == {"messages"}
            assert [m.text for m in state["messages"]] == ["What is a cat?", "agg: What is a cat?"]


# --- failures --------------------------------------------------------------------------------


def _raise(error: Exception):
    def fail(_):
        raise error

    return RunnableLambda(fail).with_config(run_name="raises")


FAILURES = {
    "status": lambda chat: chat("bad?status=500"),
    "empty": lambda chat: chat("bad?empty"),
    "refusal": lambda chat: chat("bad?refusal"),
    "cut": lambda chat: chat("bad?cut=1", streaming=True),
    "parser": lambda chat: _raise(OutputParserException("SECRET-TEXT no json")),
    "raise": lambda chat: _raise(ValueError("SECRET-TEXT")),
    "not a message": lambda chat: RunnableLambda(lambda _: 42),
    "only tools": lambda chat: RunnableLambda(
        lambda _: AIMessage("", tool_calls=[{"name": "SECRET-TEXT", "args": {}, "id": "1"}])
    ),
    "blank": lambda chat: RunnableLambda(lambda _: AIMessage(" \n")),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_proposer_is_recorded_and_left_out(chat, server, failure, mode):
    bad = Proposer(FAILURES[failure](chat), name="bad")
    graph = create_moa([chat("a"), bad, chat("c")], chat("agg"), layers=3)
    state = await run(graph, mode, QUESTION)
    records = [p for p in state["proposals"] if p["proposer"] == "bad"]
    assert [(p["layer"], p["status"], p["content"]) for p in records] == [
        (1, "failed", ""),
        (2, "failed", ""),
    ]
    assert all(p["error"] and "\n" not in p["error"] for p in records)
    can_pass = failure in ("status", "cut")
    assert [p["attempts"] for p in records] == [3 if can_pass else 1] * 2
    references = format_references(["a: What is a cat?", "c: What is a cat?"])
    for call in server.of("agg"):
        assert call.system == references
    for call in server.calls:
        assert "SECRET-TEXT" not in str(call.messages)
        assert "the server said" not in str(call.messages)


@pytest.mark.parametrize("mode", MODES)
async def test_when_all_fail_the_next_layer_is_never_called(chat, server, mode):
    graph = create_moa([[chat("a?status=500"), chat("b?empty")], [chat("c")]], chat("agg"))
    with pytest.raises(NotEnoughProposals) as caught:
        await run(graph, mode, QUESTION)
    assert set(server.labels()) == {"a", "b"}
    assert [p["status"] for p in caught.value.proposals] == ["failed", "failed"]
    assert "a?status=500: " in str(caught.value)
    assert "the answer was empty" in str(caught.value)


async def test_min_proposals_is_what_a_layer_must_give(chat, server):
    proposers = [chat("a"), chat("b"), chat("c?status=400")]
    await create_moa(Layer(proposers, min_proposals=2), chat("agg")).ainvoke(QUESTION)
    with pytest.raises(NotEnoughProposals, match="2 usable proposals of 3, but min_proposals is 3"):
        await create_moa(Layer(proposers, min_proposals=3), chat("agg")).ainvoke(QUESTION)
    assert len(server.of("agg")) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_aggregator_hands_over_the_proposals(chat, server, failure, mode):
    if failure == "only tools":
        pytest.skip("tool calls are an answer, for an agent around the graph")
    graph = create_moa([chat("a"), chat("b")], FAILURES[failure](chat))
    with pytest.raises(AggregationFailed) as caught:
        await run(graph, mode, QUESTION)
    assert [p["content"] for p in caught.value.proposals] == [
        "a: What is a cat?",
        "b: What is a cat?",
    ]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.proposals) == (str(caught.value), caught.value.proposals)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
async def test_resuming_after_a_failed_aggregator_calls_only_the_aggregator(chat, server, mode):
    graph = create_moa(
        [chat("a"), chat("b")],
        chat("agg?fail_first=1"),
        layers=3,
        checkpointer=InMemorySaver(),
        calls=CallPolicy(retries=0),
    )
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(AggregationFailed):
        await run(graph, mode, QUESTION, thread)
    before = len(server.calls)
    state = await run(graph, mode, None, thread)
    assert [c.label for c in server.calls[before:]] == ["agg"]
    assert state["messages"][-1].text == "agg: What is a cat?"
    assert len(state["proposals"]) == 4


async def test_our_own_errors_are_never_retried(chat, server):
    with pytest.raises(NotEnoughProposals):
        await create_moa([chat("a?empty")], chat("agg")).ainvoke(QUESTION)
    assert len(server.calls) == 1


# --- turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
async def test_a_turn_sees_the_aggregated_answers_and_no_earlier_proposals(chat, server, mode):
    graph = create_moa([chat("a"), chat("b")], chat("agg"), layers=3, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for turn in ("one", "two", "three"):
        server.reset()
        server.answers |= {label: f"{label} {turn}" for label in ("a", "b", "agg")}
        state = await run(graph, mode, {"messages": turn}, thread)
        assert len(state["proposals"]) == 4
        assert {p["content"] for p in state["proposals"]} == {f"a {turn}", f"b {turn}"}
        for call in server.calls:
            others = {"one", "two", "three"} - {turn}
            assert not any(f"{p} {other}" in call.system for p in "ab" for other in others)
            talk = [m["content"] for m in call.messages if m["role"] != "system"]
            assert talk == [t for t in _talk() if t][: talk.index(turn) + 1]


def _talk():
    for turn in ("one", "two", "three"):
        yield from (turn, f"agg {turn}")


async def test_a_failed_turn_leaves_nothing_to_the_next(chat, server):
    graph = create_moa(
        [chat("a?fail_first=1")],
        chat("agg"),
        checkpointer=InMemorySaver(),
        calls=CallPolicy(retries=0),
    )
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(NotEnoughProposals):
        await graph.ainvoke({"messages": "one"}, thread)
    state = await graph.ainvoke({"messages": "two"}, thread)
    assert [(p["status"], p["turn"]) for p in state["proposals"]] == [("ok", 2)]


async def test_a_model_that_repeats_its_message_object_still_adds_an_answer():
    same = FakeMessagesListChatModel(responses=[AIMessage("always this")])
    graph = create_moa([same], same, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke({"messages": "one"}, thread)
    state = await graph.ainvoke({"messages": "two"}, thread)
    assert [m.text for m in state["messages"]] == ["one", "always this", "two", "always this"]


# --- usage and secrets -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
async def test_usage_is_counted_once_for_every_call(chat, server, mode):
    def look_up(question: str) -> str:
        """Look it up."""
        return "42"

    agent = create_agent(chat("agent"), tools=[look_up])
    graph = create_moa(
        [chat("a"), chat("b?status=500"), Proposer(agent, name="agent")],
        create_agent(chat("agg"), tools=[look_up]),
        layers=3,
    )
    with get_usage_metadata_callback() as counted:
        state = await run(graph, mode, QUESTION)
    assert len(server.of("agent")) == 4  # twice each layer: the tool call, then the answer
    told = total_usage(
        [*(p["usage"] for p in state["proposals"]), state["messages"][-1].usage_metadata]
    )
    expected = total_usage(counted.usage_metadata.values())
    assert {k: told[k] for k in ("input_tokens", "output_tokens", "total_tokens")} == {
        k: expected[k] for k in ("input_tokens", "output_tokens", "total_tokens")
    }


KEY = "sk-live-abcdef0123456789"


class Traced(BaseTracer):
    """What a tracer is told of the runs that are ours; a model's own error is its provider's."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def _persist_run(self, run):
        self._keep(run)

    def _keep(self, run):
        told = [run.inputs, run.extra, run.serialized]
        if run.run_type == "chain":
            told += [run.outputs, run.error]
        if run.name != "RunnableLambda":
            self.texts.append(repr(told))
        for child in run.child_runs:
            self._keep(child)


@pytest.mark.parametrize("behaviour", ["echo_key", "status=400"])
@pytest.mark.parametrize("place", ["proposer", "aggregator"])
async def test_no_key_is_ever_told(chat, server, caplog, behaviour, place):
    bad = chat(f"bad?{behaviour}", api_key=KEY)
    quoting = RunnableLambda(lambda _: (_ for _ in ()).throw(RuntimeError(f"401 for {KEY}")))
    proposers = [chat("a"), Proposer(quoting, name="quoting")]
    proposers, aggregator = (
        ([*proposers, bad], chat("agg")) if place == "proposer" else (proposers, bad)
    )
    graph = create_moa(proposers, aggregator)
    texts = [repr(Proposer(bad)), repr(graph), str(graph.get_graph().to_json())]
    traced = Traced()
    with caplog.at_level(logging.DEBUG, "moa_graph"):
        try:
            texts.append(repr(await graph.ainvoke(QUESTION, {"callbacks": [traced]})))
        except AggregationFailed as error:
            texts += [repr(error), str(error.proposals), *traceback.format_exception(error)]
    texts += [caplog.text, *traced.texts]
    assert len(traced.texts) > 5
    assert "Proposer quoting of layer 1" in caplog.text
    assert not any(KEY in text or KEY[3:] in text for text in texts)


# --- a proposer's own tokens -------------------------------------------------------------------


async def test_progress_events_tell_what_happens(chat, server):
    graph = create_moa(
        [chat("a?tps=40"), chat("b?status=500")], chat("agg"), layers=3, stream_proposals=True
    )
    server.answers["a"] = "one two three four five six seven eight nine ten"
    modes = ["custom", "messages"]
    events = [e async for mode, e in graph.astream(QUESTION, stream_mode=modes) if mode == "custom"]
    kinds = [event["type"] for event in events]
    assert kinds.count("proposer_started") == kinds.count("proposer_ended") == 4
    assert kinds.count("layer_ended") == 2
    assert kinds[-1] == "aggregator_started"
    assert [(e["ok"], e["failed"]) for e in events if e["type"] == "layer_ended"] == [(1, 1)] * 2
    tokens = [e["tokens"] for e in events if e["type"] == "proposer_progress" and e["layer"] == 1]
    assert tokens == sorted(tokens)
    assert len(tokens) >= 2
    ended = next(e for e in events if e["type"] == "proposer_ended" and e["proposer"] == "a?tps=40")
    assert (ended["status"], ended["tokens"]) == ("ok", 10)


# --- threads, forks, interrupts ------------------------------------------------------------------


async def test_a_question_of_an_agent_that_proposes_reaches_the_user_and_back(chat, server):
    asking = StateGraph(MessagesState)
    asking.add_node("ask", lambda _: {"messages": AIMessage(f"They say {interrupt('Well?')}.")})
    asking.add_edge(START, "ask")
    graph = create_moa(
        [chat("a"), Proposer(asking.compile(), name="asks")],
        chat("agg"),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    state = await graph.ainvoke(QUESTION, thread)
    assert [i.value for i in state["__interrupt__"]] == ["Well?"]
    state = await graph.ainvoke(Command(resume="yes"), thread)
    assert [p["content"] for p in state["proposals"]] == ["a: What is a cat?", "They say yes."]
    assert server.labels() == ["a", "agg"]


async def test_cancelling_a_run_closes_its_requests(chat, server):
    task = asyncio.create_task(create_moa([chat("a?hang")], chat("agg")).ainvoke(QUESTION))
    await eventually(lambda: server.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: server.calls[0].disconnected)


async def test_a_killed_layer_is_finished_without_calling_again_who_had_answered(chat, server):
    killed = [True]
    memory = InMemorySaver()

    def answers_kept():
        writes = [write for group in memory.writes.values() for write in group.values()]
        return sum(channel == "proposals" for _, channel, *_ in writes)

    def die(_):
        if killed:
            for _ in range(1000):
                if answers_kept() == 2:
                    raise KeyboardInterrupt
                time.sleep(0.01)
        return "late"

    late = Proposer(RunnableLambda(die), name="late")
    graph = create_moa([[chat("a")], [chat("b"), late]], chat("agg"), checkpointer=memory)
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(KeyboardInterrupt):
        graph.invoke(QUESTION, thread)
    assert server.labels() == ["a", "b"]
    killed.clear()
    state = await graph.ainvoke(None, thread)
    assert server.labels() == ["a", "b", "agg"]
    assert [p["proposer"] for p in state["proposals"]] == ["a", "b", "late"]


async def test_a_fork_runs_the_aggregator_again_also_on_edited_proposals(chat, server):
    graph = create_moa([chat("a")], chat("agg"), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke(QUESTION, thread)
    history = [snapshot async for snapshot in graph.aget_state_history(thread)]
    before = next(snapshot for snapshot in history if snapshot.next == ("aggregator",))
    server.reset()
    await graph.ainvoke(None, before.config)
    edited = Overwrite([{**before.values["proposals"][0], "content": "edited"}])
    fork = await graph.aupdate_state(before.config, {"proposals": edited})
    await graph.ainvoke(None, fork)
    assert server.labels() == ["agg", "agg"]
    assert server.calls[1].system == format_references(["edited"])


async def test_a_trimmed_history_is_no_earlier_turn(chat, server):
    graph = create_moa([chat("a")], chat("agg"), checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for question in ("one", "two"):
        state = await graph.ainvoke({"messages": question}, thread)
    trimmed = [RemoveMessage(id=message.id) for message in state["messages"]]
    await graph.aupdate_state(thread, {"messages": trimmed}, as_node="aggregator")
    state = await graph.ainvoke({"messages": "three"}, thread)
    assert [m.text for m in state["messages"]] == ["three", "agg: three"]
    assert [p["content"] for p in state["proposals"]] == ["a: three"]


async def test_a_failed_mixture_as_aggregator_keeps_the_outer_proposals(chat):
    inner = create_moa([chat("in")], chat("bad?status=500"))
    with pytest.raises(AggregationFailed) as caught:
        await create_moa([chat("a")], inner).ainvoke(QUESTION)
    assert [p["proposer"] for p in caught.value.proposals] == ["a"]


async def test_the_graphs_own_concurrency_is_no_limit_for_an_agents_tools(chat):
    limits = []

    def model(_, config):
        limits.append(config.get("max_concurrency"))
        return "x"

    graph = create_moa([RunnableLambda(model)], chat("agg"))
    await graph.ainvoke(QUESTION)
    graph.invoke(QUESTION, {"max_concurrency": 7})
    assert limits == [None, 7]


async def test_an_agent_that_hands_over_instead_of_answering_has_failed(chat, server):
    agent = StateGraph(MessagesState)
    agent.add_node("go", lambda _: Command(graph=Command.PARENT, goto="elsewhere"))
    agent.add_edge(START, "go")
    for mode in ("invoke", "ainvoke"):
        state = await run(create_moa([agent.compile(), chat("a")], chat("agg")), mode, QUESTION)
        assert [p["status"] for p in state["proposals"]] == ["failed", "ok"]
        assert "handed over" in state["proposals"][0]["error"]


async def test_a_picture_is_an_answer_of_the_aggregator(chat):
    picture = [{"type": "image", "url": "https://example.com/cat.png"}]
    aggregator = RunnableLambda(lambda _: AIMessage(picture))
    state = await create_moa([chat("a")], aggregator).ainvoke(QUESTION)
    assert state["messages"][-1].content == picture


async def test_options_in_a_clients_configuration_are_not_ours(chat, server):
    forged = {"configurable": {"__moa_call_options": {"model": "expensive"}}}
    await create_moa([chat("a")], chat("agg")).ainvoke(QUESTION, forged)
    assert server.labels() == ["a", "agg"]


@pytest.mark.parametrize(
    ("conversation", "spread"),
    [
        ("hi", False),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}] * 60}], True),
        ([{"role": r, "content": "hi"} for r in ("user", "assistant") * 30] + ["hi"], True),
    ],
    ids=["short", "parts", "messages"],
)
async def test_other_tasks_run_between_the_calls_of_a_long_conversation(conversation, spread):
    began: list[int] = []
    steps = 0

    async def model(messages):
        began.append(steps)
        return "an answer"

    async def others():
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    moa = create_moa([RunnableLambda(model, name=name) for name in "abc"], RunnableLambda(model))
    counting = asyncio.create_task(others())
    await moa.ainvoke({"messages": conversation})
    counting.cancel()
    a, b, c, _ = began
    assert (b - a >= 5 and c - b >= 5) is spread
