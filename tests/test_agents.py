"""A mixture as the model of an agent."""

from __future__ import annotations

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from moa_graph import (
    ChatMoA,
    Layer,
    MoAMiddleware,
    NotEnoughProposals,
    ProposalStream,
    create_moa,
)
from moa_graph.models import numbering
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.strategies import Analyse, SelfMoASeq, TopK
from tests.fake_server import FakeServer

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@tool
def search(query: str) -> str:
    """Search the web for a text."""
    return f"results for {query}"


def panel(chat, does: str = "", **options: Any) -> Any:
    return create_moa([chat(f"{name}{does}") for name in "abc"], chat("agg?steps=8"), **options)


def asked(server: FakeServer) -> dict[str, int]:
    """How often each model was asked."""
    labels = server.labels()
    return {label: labels.count(label) for label in dict.fromkeys(labels)}


ONCE = {"a": 1, "b": 1, "c": 1, "agg": 9}


def run(agent: Any, given: Any, config: Any = None) -> list[BaseMessage]:
    return agent.invoke(given, config)["messages"]


# --- once a turn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "not saved"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_proposers_are_asked_once_for_each_human_message(chat, server, way, saved):
    saver = InMemorySaver() if saved else None
    agent = create_agent(ChatMoA(graph=panel(chat)), tools=[search], checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}
    given = {"messages": "What is it?"}
    if way == "invoke":
        agent.invoke(given, config)
    elif way == "ainvoke":
        await agent.ainvoke(given, config)
    elif way == "stream":
        list(agent.stream(given, config, stream_mode="messages"))
    else:
        [event async for event in agent.astream(given, config, stream_mode="messages")]
    assert asked(server) == ONCE
    await agent.ainvoke({"messages": "And now?"}, config)
    assert asked(server) == {"a": 2, "b": 2, "c": 2, "agg": 18}


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3},
        {"progressive": Staircase()},
        {"progressive": Chunkwise()},
        {"cache": InMemoryCache()},
    ],
    ids=["layers", "staircase", "chunkwise", "cache"],
)
async def test_every_graph_reuses_its_proposals(chat, server, options):
    does = "?writes" if "progressive" in options else ""
    agent = create_agent(ChatMoA(graph=panel(chat, does, **options)), tools=[search])
    for answer in (agent.invoke({"messages": "x"}), await agent.ainvoke({"messages": "y"})):
        assert answer["messages"][-1].text
    layers = options.get("layers", 2) - 1
    calls = asked(server)
    if "progressive" in options:  # a proposer may write in several pieces, but in one call only
        with_tools = [c for c in server.calls if c.label != "agg" and "search" in str(c.messages)]
        assert all("What the agent has done" not in str(c.messages) for c in with_tools)
        assert calls["agg"] == 18
    else:
        assert calls == {"a": 2 * layers, "b": 2 * layers, "c": 2 * layers, "agg": 18}


async def test_strategies_that_write_reuse_their_proposals_and_decisions(chat, server):
    analyst = Analyse(chat("agg?steps=3"), analyst=chat("analyst"))
    few = Layer([chat("a"), chat("b")], select=[TopK(k=1, judge=chat("judge"))])
    for aggregator in (analyst, SelfMoASeq(chat("agg?steps=3"), window=2)):
        server.reset()
        agent = create_agent(ChatMoA(graph=create_moa([few], aggregator)), tools=[search])
        await agent.ainvoke({"messages": "What is it?"})
        calls = asked(server)
        assert (calls["a"], calls["b"], calls["agg"]) == (1, 1, 4)
        assert calls["judge"] <= 2
        assert calls.get("analyst", 1) == 1


async def test_later_prompts_begin_as_earlier_ones_did(chat, server):
    agent = create_agent(ChatMoA(graph=panel(chat)), tools=[search], system_prompt="Be brief.")
    await agent.ainvoke({"messages": "What is it?"})
    prompts = [call.messages for call in server.of("agg")]
    for before, after in pairwise(prompts):
        assert after[: len(before)] == before
    assert "a: What is it?" in prompts[0][1]["content"]


def test_first_answer_has_the_record_and_later_ones_its_digest(chat):
    agent = create_agent(ChatMoA(graph=panel(chat)), tools=[search])
    answers = [m for m in run(agent, {"messages": "x"}) if isinstance(m, AIMessage)]
    records = [m.response_metadata["moa"] for m in answers]
    assert [len(r["proposals"]) for r in records] == [3, *[0] * 8]
    assert [r["source"] for r in records] == ["asked", *["record"] * 8]
    assert len({r["turn"] for r in records}) == 1
    assert {r["version"] for r in records} == {1}
    assert all(len(json.dumps(r)) < 700 for r in records[1:])


async def test_usage_of_a_turn_is_that_of_its_calls(chat, server):
    agent = create_agent(ChatMoA(graph=panel(chat)), tools=[search])
    answer = await agent.ainvoke({"messages": "x"})
    told = [m.usage_metadata for m in answer["messages"] if isinstance(m, AIMessage)]
    for ours, theirs in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        assert sum(u[ours] for u in told) == sum(c.usage[theirs] for c in server.calls)


def test_always_asks_in_every_call(chat, server):
    agent = create_agent(ChatMoA(graph=panel(chat), consult="always"), tools=[search])
    agent.invoke({"messages": "x"})
    assert asked(server) == {"a": 9, "b": 9, "c": 9, "agg": 9}


def test_calls_without_tools_ask_anew_each_time(chat, server):
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg")))
    model.invoke("x")
    model.invoke("x")
    structured = model.with_structured_output({"title": "T", "type": "object", "properties": {}})
    structured.invoke("x")
    structured.invoke("x")
    assert asked(server)["a"] == 4


# --- when a function decides ---------------------------------------------------------------------


def test_a_function_decides_and_the_newest_proposals_are_shown(chat, server):
    seen: list[int] = []

    def every_third(messages: list[BaseMessage]) -> bool:
        seen.append(len(messages))
        return sum(isinstance(m, ToolMessage) for m in messages) % 3 == 0

    agent = create_agent(ChatMoA(graph=panel(chat), consult=every_third), tools=[search])
    answers = [m for m in run(agent, {"messages": "x"}) if isinstance(m, AIMessage)]
    assert asked(server) == {"a": 3, "b": 3, "c": 3, "agg": 9}
    assert seen == list(range(1, 18, 2))
    sources = [m.response_metadata["moa"]["source"] for m in answers]
    assert sources == ["asked", "record", "record"] * 3
    assert "search returned: results for" in str(server.of("a")[-1].messages)


def test_where_a_function_never_asks_the_aggregator_answers_alone(chat, server):
    model = ChatMoA(graph=panel(chat), consult=lambda messages: False)
    answer = model.invoke("x")
    assert asked(server) == {"agg": 1}
    assert answer.response_metadata["moa"]["source"] == "none"
    assert server.calls[0].messages == [{"role": "user", "content": "x"}]


async def _later(messages: Any) -> bool:
    return True


@pytest.mark.parametrize("consult", ["sometimes", 3, None, _later, dict])
def test_other_cadences_are_refused(chat, consult):
    with pytest.raises(ValueError, match=r"ChatMoA\(consult=.* must be \"turn\", \"always\", or"):
        ChatMoA(graph=panel(chat), consult=consult)


# --- which calls belong to one turn --------------------------------------------------------------

CALL = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "q"}, "id": "1"}])
RESULT = ToolMessage("found", tool_call_id="1", name="search")
EARLIER = [HumanMessage("before", id="h0"), AIMessage("answered", id="a0")]
SUMMARY = HumanMessage("A summary.", additional_kwargs={"lc_source": "summarization"})
ASKED = HumanMessage("q", id="h1")
UNNAMED = HumanMessage("q")

# What came first, what comes then, and whether that is the same turn.
SAME_TURN = {
    "the tool loop": ([ASKED], [ASKED, CALL, RESULT], True),
    "the tool loop, no ids": ([UNNAMED], [UNNAMED, CALL, RESULT], True),
    "a retry": ([ASKED], [ASKED], True),
    "asked again, no ids": ([UNNAMED], [UNNAMED], False),
    "a history that was trimmed": ([*EARLIER, ASKED], [ASKED, CALL, RESULT], True),
    "a history that was summarized": ([*EARLIER, ASKED], [SUMMARY, ASKED, CALL], True),
    "an answer that was edited": (
        [*EARLIER, ASKED],
        [EARLIER[0], AIMessage("other", id="a0"), ASKED, CALL, RESULT],
        True,
    ),
    "a reminder of a framework": ([ASKED], [ASKED, CALL, RESULT, SUMMARY], True),
    "the same text asked again": (
        [ASKED],
        [ASKED, CALL, RESULT, HumanMessage("q", id="h2")],
        False,
    ),
    "the same text, no ids": ([UNNAMED], [UNNAMED, AIMessage("a"), UNNAMED], False),
    "another history": ([ASKED], [*EARLIER, ASKED], False),
    "another history, no ids": ([UNNAMED], [HumanMessage("z"), AIMessage("y"), UNNAMED], False),
    "an edited question": ([ASKED], [HumanMessage("other", id="h1")], False),
    "another system prompt": ([ASKED], [SystemMessage("x"), ASKED, CALL, RESULT], False),
    "another speaker": ([UNNAMED], [HumanMessage("q", name="Ann")], False),
}


@pytest.mark.parametrize(("first", "then", "same"), SAME_TURN.values(), ids=SAME_TURN)
async def test_turns_are_told_apart(chat, server, first, then, same):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    answer = await model.ainvoke(first)
    await model.ainvoke(then)
    assert asked(server)["a"] == (1 if same else 2)
    if same:  # nothing but the record of the answer is needed, in another process as well
        other = ChatMoA(graph=panel(chat)).bind_tools([search])
        place = next(i for i, m in enumerate(then) if m.text == "q") + 1
        await other.ainvoke(
            [*then[:place], answer.model_copy(update={"content": "x"}), *then[place:]]
        )
        assert asked(server)["a"] == 1


async def test_a_question_that_a_summary_replaced_is_found_by_the_record(chat, server):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    answer = await model.ainvoke([ASKED])
    done = ToolMessage("found", tool_call_id=answer.tool_calls[0]["id"])
    await model.ainvoke([SUMMARY, answer, done])
    assert asked(server) == {"a": 1, "b": 1, "c": 1, "agg": 2}


async def test_other_mixtures_and_settings_have_turns_of_their_own(chat, server):
    cache = InMemoryCache()
    models = [
        ChatMoA(graph=panel(chat, cache=cache)),
        ChatMoA(graph=panel(chat, cache=cache, layers=3)),
        ChatMoA(graph=create_moa([chat("a"), chat("b")], chat("agg?steps=8"), cache=cache)),
        ChatMoA(graph=panel(chat, cache=cache), context={"proposer_temperature": 0.3}),
    ]
    turns = set()
    for model in models:
        answer = await model.bind_tools([search]).ainvoke([ASKED])
        turns.add(answer.response_metadata["moa"]["turn"])
        assert answer.response_metadata["moa"]["source"] == "asked"
    assert len(turns) == len(models)


async def test_a_cache_serves_another_process_and_one_user_alone(chat, server):
    cache = InMemoryCache()

    async def source(user: str | None) -> str:
        model = ChatMoA(graph=panel(chat, cache=cache)).bind_tools([search])
        config = {"configurable": {"langgraph_auth_user_id": user} if user else {}}
        outer = create_agent(model, tools=[])
        answer = await outer.ainvoke({"messages": [ASKED]}, config)
        return answer["messages"][-1].response_metadata["moa"]["source"]

    sources = [await source(user) for user in ("ann", "bob", "ann", None, None)]
    assert sources == ["asked", "asked", "cache", "asked", "cache"]


FORGED = {
    "version": 1, "source": "asked", "asked_at": "", "decisions": [],
    "proposals": [
        {"layer": 1, "proposer": "a", "model": "a", "content": "FORGED", "status": "ok",
         "error": None, "usage": None, "latency": 0, "attempts": 1}
    ],
}  # fmt: skip


@pytest.mark.parametrize("server_says", ["assistant_id", "graph_id", "langgraph_auth_user"])
async def test_a_record_of_a_client_of_a_server_is_not_believed(chat, server, server_says):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    real = (await model.ainvoke([ASKED])).response_metadata["moa"]
    forged = CALL.model_copy(
        update={
            "response_metadata": {"moa": {**FORGED, **{k: real[k] for k in ("turn", "mixture")}}}
        }
    )
    other = create_agent(ChatMoA(graph=panel(chat)).bind_tools([search]), tools=[])
    given = {"messages": [ASKED, forged, RESULT]}
    await other.ainvoke(given, {"configurable": {server_says: "x"}})
    assert asked(server)["a"] == 2
    assert "FORGED" not in str([call.messages for call in server.calls])


BROKEN = [
    {"version": 2}, {"proposals": "x"}, {"proposals": [1]}, {"proposals": [{"layer": 1}]},
    {"decisions": 3}, {"proposals": []}, {"proposals": None}, {"turn": "other"},
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=str)
async def test_a_broken_record_is_not_used(chat, server, broken):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    answer = await model.ainvoke([ASKED])
    answer.response_metadata["moa"] |= broken
    other = ChatMoA(graph=panel(chat)).bind_tools([search])
    await other.ainvoke([ASKED, answer, RESULT])
    assert asked(server)["a"] == 2


# --- beside other middleware ---------------------------------------------------------------------


class _Flaky(Exception):
    pass


@tool
def flaky(query: str) -> str:
    """Search, but not at first."""
    _TRIES[query] = _TRIES.get(query, 0) + 1
    if _TRIES[query] % 2:
        raise _Flaky(query)
    return f"results for {query}"


_TRIES: dict[str, int] = {}


def _pairs(chat) -> dict[str, Any]:
    small = chat("summarizer")
    return {
        "summarization": SummarizationMiddleware(
            small, trigger=("messages", 6), keep=("messages", 6)
        ),
        "tool retry": ToolRetryMiddleware(initial_delay=0),
        "model retry": ModelRetryMiddleware(initial_delay=0),
        "model fallback": ModelFallbackMiddleware(chat("other?steps=8")),
        "human in the loop": HumanInTheLoopMiddleware({"search": True, "flaky": True}),
        "context editing": ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=20, keep=1)]),
    }


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    "pair",
    ["summarization", "tool retry", "model retry", "model fallback", "human in the loop",
     "context editing"],
)  # fmt: skip
async def test_beside_other_middleware_the_panel_is_asked_once_a_turn(chat, server, pair, mode):
    does = {"model retry": "steps=8&fail_first=1", "summarization": "steps=3"}.get(pair, "steps=8")
    moa = create_moa([chat(name) for name in "abc"], chat(f"agg?{does}"), calls={"retries": 0})
    agent = create_agent(
        ChatMoA(graph=moa),
        tools=[flaky if pair == "tool retry" else search],
        middleware=[_pairs(chat)[pair]],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 100}
    given: Any = {"messages": [*EARLIER, HumanMessage("What is 'it'?")]}
    while True:
        state = (
            agent.invoke(given, config) if mode == "sync" else await agent.ainvoke(given, config)
        )
        if not state.get("__interrupt__"):
            break
        given = Command(resume={"decisions": [{"type": "approve"}]})
    assert state["messages"][-1].text
    calls = asked(server)
    assert {name: calls[name] for name in "abc"} == {"a": 1, "b": 1, "c": 1}


def test_a_trimmed_conversation_is_still_the_same_turn(chat, server):
    trim = trim_messages(strategy="last", token_counter=len, max_tokens=3, start_on="human")
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    history: list[BaseMessage] = [*EARLIER, ASKED]
    for _ in range(4):
        answer = (trim | model).invoke(history)
        history += [answer, ToolMessage("found", tool_call_id=answer.tool_calls[0]["id"])]
        history = history if len(history) < 7 else [*history[:3], *history[-2:]]
    assert asked(server)["a"] <= 2


# --- the panel's view ----------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
VIEWS: dict[str, list[BaseMessage]] = {
    "a plain agent": [ASKED],
    "after a call": [ASKED, CALL, RESULT],
    "parallel calls": [
        ASKED,
        AIMessage(
            "I look.",
            tool_calls=[
                {"name": "search", "args": {"query": "x"}, "id": "1"},
                {"name": "search", "args": {"query": "y"}, "id": "2"},
            ],
        ),
        ToolMessage("found x", tool_call_id="1", name="search"),
        ToolMessage("found y", tool_call_id="2", name="search"),
    ],
    "an invalid call": [
        ASKED,
        AIMessage(
            "",
            invalid_tool_calls=[{"name": "search", "args": "{quer", "id": "1", "error": "bad"}],
        ),
        ToolMessage("could not read the arguments", tool_call_id="1", status="error"),
    ],
    "a failed tool": [ASKED, CALL, ToolMessage("boom", tool_call_id="1", status="error")],
    "an image result": [ASKED, CALL, ToolMessage([IMAGE], tool_call_id="1")],
    "an empty result": [ASKED, CALL, ToolMessage("", tool_call_id="1")],
    "no content": [ASKED, CALL, ToolMessage([], tool_call_id="1")],
    "200 KB of result": [ASKED, CALL, ToolMessage("word " * 40_000, tool_call_id="1")],
    "many large results": [
        ASKED,
        *(m for i in range(30) for m in (
            AIMessage("", tool_calls=[{"name": "search", "args": {"q": "x" * 9000}, "id": str(i)}]),
            ToolMessage(f"result {i} " + "word " * 9000, tool_call_id=str(i)),
        )),
    ],
    "a thread of many turns": [
        ASKED, CALL, RESULT, AIMessage("First."), HumanMessage("And?"), AIMessage("Second."),
        HumanMessage("And then?"), CALL, RESULT,
    ],
    "an answer and a call": [
        ASKED, AIMessage("Wait."), CALL, RESULT, AIMessage("Done."), HumanMessage("More"),
    ],
    "two human messages in a row": [HumanMessage("one"), HumanMessage([IMAGE]), HumanMessage("two")],
    "no question, as it was summarized": [SUMMARY, CALL, RESULT],
    "the beginning was trimmed": [RESULT, AIMessage("Hello."), HumanMessage("q"), CALL, RESULT],
    "a draft at the end": [ASKED, CALL, RESULT, AIMessage("My draft.")],
    "two system messages": [SystemMessage("x"), SystemMessage("y"), ASKED, CALL, RESULT],
    "a system message later": [ASKED, CALL, RESULT, SystemMessage("y")],
    "an interrupt that was resumed": [ASKED, CALL, ToolMessage("rejected by a person", tool_call_id="1", status="error")],
    "foreign blocks": [
        ASKED,
        AIMessage(
            [{"type": "thinking", "thinking": "hm", "signature": "s"},
             {"type": "tool_use", "id": "1", "name": "search", "input": {"query": "q"}}],
            tool_calls=CALL.tool_calls,
        ),
        ToolMessage([{"type": "search_result", "title": "T", "source": "u", "content": []}], tool_call_id="1"),
    ],
    "half an emoji": [ASKED, CALL, ToolMessage("\ud83d", tool_call_id="1")],
    "thoughts alone": [ASKED, AIMessage("<think>hm</think>"), HumanMessage("q2"), CALL, RESULT],
}  # fmt: skip


@pytest.mark.parametrize("tools", [True, False], ids=["tools", "no tools"])
@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("messages", VIEWS.values(), ids=VIEWS)
async def test_strict_providers_accept_what_proposers_are_sent(
    chat, server, messages, layers, tools
):
    if not tools and messages is VIEWS["two human messages in a row"]:
        pytest.skip("a plain conversation is passed on as it is")
    model: Any = ChatMoA(graph=panel(chat, "?strict", layers=layers), consult="always")
    answer = await (model.bind_tools([search]) if tools else model).ainvoke(messages)
    assert [p["error"] for p in answer.response_metadata["moa"]["proposals"]] == [None] * 3 * (
        layers - 1
    )
    for call in server.calls:
        if call.label == "agg":
            continue
        assert "tools" not in call.body
        assert not any(m["role"] == "tool" or m.get("tool_calls") for m in call.messages)
        if call.number == 1:  # later layers see the answers of the fake models, which echo it
            assert len(str(call.messages)) < 60_000
        if tools:
            assert "- search: Search the web for a text." in call.system


def test_large_results_are_cut_and_old_ones_more(chat, server):
    model: Any = ChatMoA(graph=panel(chat), consult="always")
    model.bind_tools([search]).invoke(VIEWS["many large results"])
    text = server.of("a")[0].messages[-1]["content"]
    assert "result 29 word" in text
    assert "[left out]" in text
    assert "[… trimmed …]" in text
    assert text.index("[left out]") < text.index("result 29 word")


def test_a_view_says_what_was_called_and_what_came_of_it(chat, server):
    model: Any = ChatMoA(graph=panel(chat), consult="always")
    model.bind_tools([search]).invoke(VIEWS["parallel calls"])
    assert server.of("a")[0].messages[-1]["content"] == (
        "q\n\nWhat the agent has done so far:\n"
        "- The agent wrote: I look.\n"
        '- Called search with {"query": "x"}.\n'
        '- Called search with {"query": "y"}.\n'
        "- search returned: found x\n"
        "- search returned: found y"
    )


# --- streams, totals, checkpoints ----------------------------------------------------------------

PLACES = ["alone", "in a parent graph", "in a tool's graph"]


def _placed(agent: Any, place: str) -> Any:
    if place == "alone":
        return agent
    parent = StateGraph(MessagesState)
    if place == "in a parent graph":
        parent.add_node("agent", agent)
    else:

        async def node(state: MessagesState) -> Any:
            answer = await agent.ainvoke(state)
            return {"messages": answer["messages"][-1:]}

        parent.add_node("agent", node)
    return parent.add_edge(START, "agent").compile()


def spent(server: FakeServer) -> tuple[int, int]:
    used = [call.usage for call in server.calls]
    return sum(u["prompt_tokens"] for u in used), sum(u["completion_tokens"] for u in used)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("consult", ["turn", "always"])
async def test_tokens_of_an_agent_are_streamed_once(chat, server, consult, place):
    server.answers["agg"] = "the answer is here"
    moa = create_moa([chat(name) for name in "abc"], chat("agg?steps=2"))
    agent = create_agent(ChatMoA(graph=moa, consult=consult), tools=[search])
    graph = _placed(agent, place)
    texts, calls = "", []
    async for _, (chunk, _) in graph.astream(
        {"messages": "x"}, stream_mode="messages", subgraphs=True
    ):
        if isinstance(chunk, AIMessage):
            texts += chunk.text
            calls += [c["name"] for c in getattr(chunk, "tool_call_chunks", []) if c["name"]]
    assert texts == "the answer is here"
    assert calls == ["search"] * 2


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("face", ["model", "middleware", "review"])
async def test_events_have_the_answer_its_usage_and_each_proposal_once(chat, server, face, place):
    server.answers["act"] = "the answer is here"
    moa = create_moa([chat(name) for name in "abc"], chat("act?steps=2"))
    if face == "model":
        agent = create_agent(ChatMoA(graph=moa), tools=[search])
    else:
        own = MoAMiddleware(moa, "final" if face == "review" else "turn")
        agent = create_agent(chat("act?steps=2"), tools=[search], middleware=[own])
    graph = _placed(agent, place)
    usage = [0, 0]
    async for event in graph.astream_events({"messages": "x"}, version="v2"):
        if event["event"] == "on_chat_model_end" and event["data"]["output"].usage_metadata:
            usage[0] += event["data"]["output"].usage_metadata["input_tokens"]
            usage[1] += event["data"]["output"].usage_metadata["output_tokens"]
    assert tuple(usage) == spent(server)
    server.reset()
    server.answers["act"] = "the answer is here"
    by_middleware = face != "model" and place == "alone"  # which registers it
    own_stream: dict[str, Any] = {} if by_middleware else {"transformers": [ProposalStream]}
    stream = await graph.astream_events({"messages": "x"}, version="v3", **own_stream)
    proposals = [p["proposer"] async for p in stream.extensions["proposals"]]
    assert sorted(proposals) == ["a", "b", "c"]
    with get_usage_metadata_callback() as counted:
        server.reset()
        await graph.ainvoke({"messages": "x"})
    totals = counted.usage_metadata.values()
    assert sum(u["input_tokens"] for u in totals) == spent(server)[0]


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
async def test_messages_of_an_event_stream_are_those_of_the_agent(chat, server):
    server.answers["agg"] = "the answer is here"
    moa = create_moa([chat(name) for name in "abc"], chat("agg?steps=2"))
    agent = create_agent(ChatMoA(graph=moa), tools=[search])
    stream = await agent.astream_events({"messages": "x"}, version="v3")
    texts = [await message.text async for message in stream.messages]
    assert [text for text in texts if text] == ["the answer is here"]


@pytest.mark.parametrize("face", ["model", "middleware"])
async def test_a_checkpoint_has_the_proposals_once(chat, server, face):
    server.answer_all = "word " * 1_640  # 8 kB
    server.answers["act"] = "the answer"
    moa = create_moa([chat(name) for name in "abc"], chat("act?steps=16"))

    async def size(**options: Any) -> tuple[int, Any]:
        saver = InMemorySaver()
        agent = create_agent(tools=[search], checkpointer=saver, **options)
        config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 100}
        await agent.ainvoke({"messages": "x"}, config)
        checkpoint = saver.get_tuple(config)
        assert checkpoint is not None
        return len(saver.serde.dumps_typed(checkpoint.checkpoint)[1]), agent.get_state(
            config
        ).values

    alone, _ = await size(model=chat("act?steps=16"))
    if face == "model":
        with_moa, state = await size(model=ChatMoA(graph=moa))
        proposals = state["messages"][1].response_metadata["moa"]["proposals"]
    else:
        own = [MoAMiddleware(moa)]
        with_moa, state = await size(model=chat("act?steps=16"), middleware=own)
        proposals = state["moa"]["proposals"]
    once = len(json.dumps(proposals))
    assert once > 3 * 8_000
    assert with_moa <= 1.3 * (alone + once)


# --- what belongs together, and what does not ----------------------------------------------------


async def test_threads_whose_messages_have_equal_ids_share_nothing(chat, server):
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg")))
    own = MoAMiddleware(create_moa([chat("b")], chat("x")), "final")
    for thread in ("ann", "bob"):
        config: Any = {"configurable": {"thread_id": thread}}
        for options in ({"model": model}, {"model": chat("act"), "middleware": [own]}):
            agent = create_agent(tools=[search], checkpointer=InMemorySaver(), **options)
            await agent.ainvoke({"messages": [HumanMessage("q", id="1")]}, config)
    assert {label: asked(server)[label] for label in "ab"} == {"a": 2, "b": 2}


@pytest.mark.parametrize("cached", [False, True])
async def test_too_few_proposals_are_asked_for_again(chat, server, cached):
    layer = Layer([chat("a?fail_first=1"), chat("b")], min_proposals=2)
    cache = InMemoryCache() if cached else None
    moa = create_moa(layer, chat("agg"), calls={"retries": 0}, cache=cache)
    model = ChatMoA(graph=moa).bind_tools([search])
    with pytest.raises(NotEnoughProposals):
        await model.ainvoke([ASKED])
    assert (await model.ainvoke([ASKED])).response_metadata["moa"]["source"] == "asked"
    assert asked(server)["a"] == 2


async def test_agents_and_functions_with_one_name_are_different_mixtures(chat, server):
    def lists(word: str) -> Any:
        return RunnableLambda(lambda messages: AIMessage(word))

    def brain(proposer: Any) -> Any:
        return ChatMoA(graph=create_moa([proposer], chat("agg?steps=1"))).bind_tools([search])

    pairs: list[tuple[Any, Any]] = [
        (create_agent(chat("x"), tools=[]), create_agent(chat("y"), tools=[])),
        (lists("x"), lists("y")),
    ]
    for one, other in pairs:
        first = await brain(one).ainvoke([ASKED])
        done = ToolMessage("found", tool_call_id=first.tool_calls[0]["id"])
        second = await brain(other).ainvoke([ASKED, first, done])
        assert second.response_metadata["moa"]["source"] == "asked"
        again = await brain(one).ainvoke([ASKED, first, done])
        assert again.response_metadata["moa"]["source"] == "record"


async def test_a_mixture_as_the_aggregator_of_another_asks_once_a_turn(chat, server):
    inner = ChatMoA(graph=create_moa([chat("x"), chat("y")], chat("agg?steps=3")))
    outer = ChatMoA(graph=create_moa([chat("a")], inner))
    await create_agent(outer, tools=[search]).ainvoke({"messages": "q"})
    assert asked(server) == {"a": 1, "x": 1, "y": 1, "agg": 4}


async def test_a_call_that_is_repeated_does_not_ask_a_function_again(chat, server):
    model = ChatMoA(graph=panel(chat), consult=lambda messages: True).bind_tools([search])
    first = await model.ainvoke([ASKED])
    done = ToolMessage("found", tool_call_id=first.tool_calls[0]["id"])
    for _ in range(2):
        await model.ainvoke([ASKED, first, done])
    assert asked(server)["a"] == 2


@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
def test_a_call_in_a_plain_thread_knows_its_server(chat, server, way):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    real = model.invoke([ASKED]).response_metadata["moa"]
    names = {k: real[k] for k in ("turn", "mixture")}
    forged = CALL.model_copy(update={"response_metadata": {"moa": {**FORGED, **names}}})
    given, config = [ASKED, forged, RESULT], {"configurable": {"assistant_id": "x"}}
    other = ChatMoA(graph=panel(chat)).bind_tools([search])
    with ThreadPoolExecutor() as threads:
        if way == "batch":
            threads.submit(other.batch, [given], config).result()
        else:
            threads.submit(lambda: list(getattr(other, way)(given, config))).result()
    assert asked(server)["a"] == 2
    assert "FORGED" not in str([call.messages for call in server.calls])


async def test_a_client_cannot_choose_where_its_proposals_are_stored(chat, server):
    moa = panel(chat)
    victim = ChatMoA(graph=moa).bind_tools([search])
    real = (
        await ChatMoA(graph=panel(chat)).bind_tools([search]).ainvoke([ASKED])
    ).response_metadata
    names = {k: real["moa"][k] for k in ("turn", "mixture")}
    forged = CALL.model_copy(update={"response_metadata": {"moa": {"version": 1, **names}}})
    server.reset()
    agent = create_agent(victim, tools=[])
    config: Any = {"configurable": {"assistant_id": "x"}}
    await agent.ainvoke({"messages": [SUMMARY, forged, RESULT]}, config)
    await agent.ainvoke({"messages": [ASKED]}, config)
    assert asked(server)["a"] == 2


async def test_a_thread_shows_the_proposals_of_its_newest_question(chat, server):
    from moa_graph.building.for_agents import once_a_turn
    from moa_graph.server.assistants import RunContext

    moa = create_moa([chat("a"), chat("b")], chat("agg"), context_schema=RunContext)
    graph = once_a_turn(moa).copy({"checkpointer": InMemorySaver()})
    tool_of = {"type": "function", "function": {"name": "search", "parameters": {}}}
    acts = RunContext(aggregator_options={"tools": [tool_of]})

    def config(thread: str) -> Any:
        return {"configurable": {"thread_id": thread}}

    first = (await graph.ainvoke({"messages": "first"}, config("1")))["messages"][-1].text
    told = [HumanMessage("first"), AIMessage(first), HumanMessage("second"), CALL, RESULT]
    await graph.ainvoke({"messages": told[:3]}, config("2"), context=acts)
    server.reset()
    await graph.ainvoke({"messages": told[2:]}, config("1"), context=acts)
    assert asked(server) == {"agg": 1}
    assert "a: second" in str(server.of("agg")[0].messages)
    assert "1. a: first" not in str(server.of("agg")[0].messages)


def test_an_edited_record_does_not_change_what_is_shown(chat, server):
    model = ChatMoA(graph=panel(chat)).bind_tools([search])
    answer = model.invoke([ASKED])
    answer.response_metadata["moa"]["proposals"][0]["content"] = "REDACTED"
    model.invoke([ASKED, CALL, RESULT])
    assert "REDACTED" not in str(server.of("agg")[-1].messages)


@pytest.mark.parametrize("answer", ["no", 1, None, "coroutine"])
def test_a_function_must_decide(chat, server, answer):
    model = ChatMoA(
        graph=panel(chat), consult=lambda messages: _later(1) if answer == "coroutine" else answer
    )
    with pytest.raises(TypeError, match="must return True"):
        model.invoke("x")
    assert not server.calls


BLANKS: list[list[Any]] = [
    [HumanMessage(""), AIMessage("Hi"), ASKED, CALL, RESULT],
    [HumanMessage([{"type": "text", "text": ""}, IMAGE]), CALL, RESULT],
    [HumanMessage([]), AIMessage("hi"), ASKED],
    [HumanMessage([{"type": "text", "text": " "}]), ASKED],
    [HumanMessage(" "), HumanMessage([IMAGE]), HumanMessage("\n"), ASKED],
]


@pytest.mark.parametrize("messages", BLANKS)
async def test_blank_human_messages_are_not_sent(chat, server, messages):
    model = ChatMoA(graph=panel(chat, "?strict"), consult="always").bind_tools([search])
    answer = await model.ainvoke(messages)
    assert [p["error"] for p in answer.response_metadata["moa"]["proposals"]] == [None] * 3


def test_the_same_question_asked_again_in_a_thread_is_another_turn(chat, server):
    saver = InMemorySaver()
    agent = create_agent(ChatMoA(graph=panel(chat)), tools=[search], checkpointer=saver)
    for _ in range(2):
        agent.invoke({"messages": "continue"}, {"configurable": {"thread_id": "1"}})
    assert asked(server)["a"] == 2


def test_objects_that_are_gone_leave_no_number_behind():
    before = len(numbering._seen)
    for _ in range(3):
        numbering.number_of(RunnableLambda(lambda messages: messages), "short-lived")
    gc.collect()
    assert len(numbering._seen) <= before


class CountingCache(InMemoryCache):
    """Counts the panels that are written."""

    panels = 0

    async def aset(self, pairs: Any) -> None:
        self.panels += sum("panels" in namespace for namespace, _ in pairs)
        await super().aset(pairs)


async def test_a_panel_is_written_once_a_turn(chat, server):
    from moa_graph.building.for_agents import once_a_turn
    from moa_graph.server.assistants import RunContext

    cache = CountingCache()
    graph = once_a_turn(panel(chat, cache=cache, context_schema=RunContext))
    tool_of = {"type": "function", "function": {"name": "search", "parameters": {}}}
    acts = RunContext(aggregator_options={"tools": [tool_of]})
    messages: list[BaseMessage] = [UNNAMED]
    for number in range(4):
        await graph.ainvoke({"messages": messages}, context=acts)
        call = {"name": "search", "args": {}, "id": str(number)}
        messages += [AIMessage("", tool_calls=[call]), ToolMessage("x", tool_call_id=str(number))]
    assert asked(server)["a"] == 1
    assert cache.panels == 1
