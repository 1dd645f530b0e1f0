"""A mixture that advises an agent whose model is another."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolRetryMiddleware,
    dynamic_prompt,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import BaseModel

from moa_graph import (
    ChatMoA,
    Layer,
    MoAContext,
    MoAMiddleware,
    NotEnoughProposals,
    ProposalStream,
    References,
    consult_tool,
    create_moa,
)
from moa_graph.middleware import after_tool_error, when_repeating
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.strategies import Rank, Shuffle, TopK
from tests.fake_server import FakeServer

pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol")


@tool
def search(query: str) -> str:
    """Search the web for a text."""
    return f"results for {query}"


def panel(chat, does: str = "", **options: Any) -> Any:
    return create_moa([chat(f"{name}{does}") for name in "abc"], chat("agg"), **options)


def asked(server: FakeServer) -> dict[str, int]:
    labels = server.labels()
    return {label: labels.count(label) for label in dict.fromkeys(labels)}


def agent_of(chat, *middleware: Any, steps: int = 4, **options: Any) -> Any:
    tools = options.pop("tools", [search])
    return create_agent(chat(f"act?steps={steps}"), tools=tools, middleware=middleware, **options)


async def answer(agent: Any, given: Any, mode: str, config: Any = None) -> dict[str, Any]:
    return agent.invoke(given, config) if mode == "sync" else await agent.ainvoke(given, config)


modes = pytest.mark.parametrize("mode", ["sync", "async"])


# --- advice --------------------------------------------------------------------------------------


@modes
async def test_proposers_are_asked_once_a_turn_and_the_own_model_acts(chat, server, mode):
    agent = agent_of(chat, MoAMiddleware(panel(chat)), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = await answer(agent, {"messages": "What is it?"}, mode, config)
    assert asked(server) == {"a": 1, "b": 1, "c": 1, "act": 5}
    assert [m.type for m in state["messages"]] == ["human", *["ai", "tool"] * 4, "ai"]
    assert state["messages"][0].text == "What is it?"
    assert [p["content"] for p in state["moa"]["proposals"]] == [
        f"{name}: What is it?" for name in "abc"
    ]
    await answer(agent, {"messages": "And now?"}, mode, config)
    assert asked(server) == {"a": 2, "b": 2, "c": 2, "act": 10}


async def test_the_model_is_shown_the_advice_in_the_same_place_at_each_step(chat, server):
    await agent_of(chat, MoAMiddleware(panel(chat))).ainvoke({"messages": "What is it?"})
    prompts = [call.messages for call in server.of("act")]
    assert "1. a: What is it?\n2. b: What is it?" in prompts[0][0]["content"]
    for before, after in pairwise(prompts):
        assert after[: len(before)] == before


async def test_proposers_are_told_the_tools_and_the_system_prompt(chat, server):
    agent = agent_of(chat, MoAMiddleware(panel(chat, "?strict")), system_prompt="Be brief.")
    await agent.ainvoke({"messages": "What is it?"})
    (call,) = server.of("a")
    assert call.system.startswith("Be brief.")
    assert "- search: Search the web for a text." in call.system
    assert "tools" not in call.body


async def test_layers_selections_letters_and_fences_are_kept(chat, server):
    few = Layer(
        [chat("a"), chat("b")], select=[TopK(k=1, judge=chat("judge")), Shuffle(letters=True)]
    )
    moa = create_moa(
        [Layer([chat("x"), chat("y")]), few], chat("agg"), references=References(fenced=True)
    )
    await agent_of(chat, MoAMiddleware(moa), steps=1).ainvoke({"messages": "What is it?"})
    shown = server.of("act")[0].messages[0]["content"]
    assert "response A>>>" in shown
    assert "response B>>>" not in shown
    assert asked(server)["x"] == 1


async def test_a_strategy_as_the_aggregator_is_not_asked(chat, server):
    moa = create_moa([chat("a"), chat("b")], Rank(judge=chat("judge")))
    await agent_of(chat, MoAMiddleware(moa)).ainvoke({"messages": "x"})
    assert "judge" not in asked(server)


@modes
async def test_too_few_proposals_are_an_error_with_what_there_is(chat, server, mode):
    moa = create_moa(Layer([chat("a?status=400"), chat("b")], min_proposals=2), chat("agg"))
    with pytest.raises(NotEnoughProposals, match="Layer 1 gave 1 usable proposals of 2") as error:
        await answer(agent_of(chat, MoAMiddleware(moa)), {"messages": "x"}, mode)
    assert [p["status"] for p in error.value.proposals] == ["failed", "ok"]
    assert "act" not in asked(server)


async def test_settings_of_a_run_reach_the_proposers(chat, server):
    context = MoAContext(proposer_temperature=0.3)
    await agent_of(chat, MoAMiddleware(panel(chat), context=context)).ainvoke({"messages": "x"})
    assert {call.body["temperature"] for call in server.of("a")} == {0.3}


# --- when ----------------------------------------------------------------------------------------


@tool
def failing(query: str) -> str:
    """Search, in vain."""
    raise ValueError("no connection")


@modes
async def test_advice_is_asked_for_after_a_tool_has_failed(chat, server, mode):
    agent = agent_of(
        chat,
        MoAMiddleware(panel(chat), consult=after_tool_error, max_uses=2),
        ToolRetryMiddleware(max_retries=0),
        tools=[failing],
    )
    state = await answer(agent, {"messages": "x"}, mode)
    assert asked(server) == {"act": 5, "a": 2, "b": 2, "c": 2}
    assert server.labels()[:2].count("act") == 1
    assert state["moa"]["uses"] == 2
    assert "failing failed" in str(server.of("a")[0].messages)


@modes
async def test_advice_is_asked_for_when_the_agent_repeats_itself(chat, server, mode):
    agent = agent_of(chat, MoAMiddleware(panel(chat), when_repeating, max_uses=1), steps=3)
    await answer(agent, {"messages": "x"}, mode)
    labels = server.labels()
    assert labels[:2] == ["act", "act"]
    assert sorted(labels[2:5]) == ["a", "b", "c"]
    assert labels[5:] == ["act", "act"]


def test_ready_predicates():
    def called(query: str, number: int = 0) -> AIMessage:
        call = {"name": "f", "args": {"query": query}, "id": f"{query}{number}"}
        return AIMessage("", tool_calls=[call])

    ok, bad = ToolMessage("x", tool_call_id="1"), ToolMessage("x", tool_call_id="1", status="error")
    question = HumanMessage("q")
    assert not after_tool_error([question])
    assert not after_tool_error([question, called("a"), ok])
    assert after_tool_error([question, called("a"), bad, ok])
    assert not after_tool_error([question, called("a"), bad, called("b"), ok])
    assert not when_repeating([question, called("a"), ok])
    assert when_repeating([question, called("a"), ok, called("a", 1), ok])
    assert not when_repeating([question, called("a"), ok, called("b"), ok])
    assert not when_repeating([called("a"), ok, question, called("a"), ok])
    assert not when_repeating([question, AIMessage("x"), AIMessage("x")])
    assert not when_repeating([])


# --- reviews -------------------------------------------------------------------------------------


@modes
async def test_a_draft_is_reviewed_once_and_only_the_answer_is_given(chat, server, mode):
    server.answers["act"] = "the answer"
    agent = agent_of(chat, MoAMiddleware(panel(chat), "final"), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    state = await answer(agent, {"messages": "What is it?"}, mode, config)
    assert server.labels()[:5] == ["act"] * 5
    assert sorted(server.labels()[5:8]) == ["a", "b", "c"]
    assert server.labels()[8:] == ["act"]
    assert [m.text for m in state["messages"]].count("the answer") == 1
    shown = server.of("act")[-1].messages[0]["content"]
    assert "Your draft:\nthe answer\n\nReviews from models:\n1. a: " in shown
    reviewed = server.of("a")[0].messages
    assert [m["role"] for m in reviewed] == ["system", "user", "assistant", "user"]
    assert reviewed[2]["content"] == "the answer"
    await answer(agent, {"messages": "And now?"}, mode, config)
    assert asked(server) == {"act": 12, "a": 2, "b": 2, "c": 2}


async def test_a_draft_streams_to_nobody(chat, server):
    agent = agent_of(chat, MoAMiddleware(panel(chat), "final"))
    server.answers["act"] = "the answer"
    for events in (
        [e async for e in agent.astream({"messages": "x"}, stream_mode="messages")],
        list(agent.stream({"messages": "x"}, stream_mode="messages")),
    ):
        text = "".join(chunk.text for chunk, _ in events if chunk.type.startswith("AI"))
        assert text == "the answer"
    state = await agent.ainvoke({"messages": "x"})
    assert sum(m.text == "the answer" for m in state["messages"]) == 1


async def test_a_draft_that_nobody_reviews_is_the_answer(chat, server, caplog):
    moa = create_moa([chat("a?status=400")], chat("agg"))
    server.answers["act"] = "the answer"
    agent = agent_of(chat, MoAMiddleware(moa, "final"))
    state = await agent.ainvoke({"messages": "x"})
    assert state["messages"][-1].text == "the answer"
    assert asked(server) == {"act": 5, "a": 1}
    assert "Layer 1 gave 0 usable proposals of 1" in state["moa"]["error"]
    assert "was not reviewed" in caplog.text


class Found(BaseModel):
    """What was found."""

    title: str


@modes
@pytest.mark.parametrize("consult", ["turn", "final"])
async def test_structured_answers_are_advised_on(chat, server, consult, mode):
    agent = create_agent(
        chat("act"),
        tools=[],
        middleware=[MoAMiddleware(panel(chat, "?strict"), consult)],
        response_format=Found,
    )
    state = await answer(agent, {"messages": "Find 'it'"}, mode)
    assert isinstance(state["structured_response"], Found)
    assert {asked(server)[name] for name in "abc"} == {1}
    assert all(p["status"] == "ok" for p in state["moa"]["proposals"])


# --- beside other middleware ---------------------------------------------------------------------

_TRIES: dict[str, int] = {}


@tool
def flaky(query: str) -> str:
    """Search, but only every second time."""
    _TRIES[query] = _TRIES.get(query, 0) + 1
    if _TRIES[query] % 2:
        raise ValueError(query)
    return f"results for {query}"


PAIRS = {
    "summarization": lambda chat: SummarizationMiddleware(
        chat("summarizer"), trigger=("messages", 6), keep=("messages", 6)
    ),
    "tool retry": lambda chat: ToolRetryMiddleware(initial_delay=0),
    "model retry": lambda chat: ModelRetryMiddleware(initial_delay=0),
    "model fallback": lambda chat: ModelFallbackMiddleware(chat("act?steps=3")),
    "human in the loop": lambda chat: HumanInTheLoopMiddleware({"search": True, "flaky": True}),
    "context editing": lambda chat: ContextEditingMiddleware(
        edits=[ClearToolUsesEdit(trigger=20, keep=1)]
    ),
    "call limit": lambda chat: ModelCallLimitMiddleware(run_limit=20),
    "to-do list": lambda chat: TodoListMiddleware(),
}


@modes
@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("consult", ["turn", "final"])
@pytest.mark.parametrize("pair", PAIRS)
async def test_beside_other_middleware_the_panel_is_asked_once_a_turn(
    chat, server, pair, order, consult, mode
):
    other, own = PAIRS[pair](chat), MoAMiddleware(panel(chat), consult)
    model = "act?steps=3"
    if pair in ("model retry", "model fallback"):
        model += "&fail_first=1"
    agent = create_agent(
        chat(model),
        tools=[flaky if pair == "tool retry" else search],
        middleware=[own, other] if order == "before" else [other, own],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 100}
    given: Any = {
        "messages": [HumanMessage("before"), AIMessage("x"), HumanMessage("What is 'it'?")]
    }
    interrupts = 0
    while True:
        state = await answer(agent, given, mode, config)
        if not state.get("__interrupt__"):
            break
        interrupts += 1
        given = Command(resume={"decisions": [{"type": "approve"}]})
    assert interrupts == (3 if pair == "human in the loop" else 0)
    assert state["messages"][-1].text
    assert {name: asked(server)[name] for name in "abc"} == {"a": 1, "b": 1, "c": 1}


# --- the tool ------------------------------------------------------------------------------------


@modes
async def test_the_agent_decides_to_consult_up_to_a_limit(chat, server, mode):
    agent = agent_of(chat, tools=[consult_tool(panel(chat))])
    state = await answer(agent, {"messages": "x"}, mode)
    assert asked(server) == {"act": 5, "a": 3, "b": 3, "c": 3, "agg": 3}
    results = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert [len(m.artifact["proposals"]) if m.artifact else 0 for m in results] == [3, 3, 3, 0]
    assert results[0].text == "agg: text\n\nContext:\ntext"
    assert "3 times" in results[3].text
    assert server.of("a")[0].messages == [{"role": "user", "content": "text\n\nContext:\ntext"}]


@modes
async def test_parallel_consultations_count_each(chat, server, mode):
    agent = create_agent(
        chat("act?steps=2&parallel=3"), tools=[consult_tool(panel(chat), max_uses=4)]
    )
    await answer(agent, {"messages": "x"}, mode)
    assert asked(server)["agg"] == 4


@modes
async def test_each_question_has_a_limit_of_its_own(chat, server, mode):
    agent = agent_of(
        chat, tools=[consult_tool(panel(chat), max_uses=1)], steps=2, checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    for question in ("x", "y"):
        await answer(agent, {"messages": question}, mode, config)
    assert asked(server)["agg"] == 2


async def test_the_tool_works_without_an_agent(chat, server):
    ask = consult_tool(panel(chat))
    assert ask.name == "consult"
    assert ask.invoke({"question": "hi"}) == "agg: hi"
    assert await ask.ainvoke({"question": "hi", "context": "c"}) == "agg: hi\n\nContext:\nc"
    assert set(ask.args) == {"question", "context"}


async def test_tokens_of_a_consultation_are_not_those_of_the_answer(chat, server):
    agent = agent_of(chat, tools=[consult_tool(panel(chat))], steps=1)
    server.answers["act"] = "the answer"
    events = [e async for e in agent.astream({"messages": "x"}, stream_mode="messages")]
    text = "".join(chunk.text for chunk, _ in events if chunk.type.startswith("AI"))
    assert text == "the answer"


# --- proposals as a stream -----------------------------------------------------------------------


def _faces(chat) -> dict[str, tuple[Any, list[Any]]]:
    return {
        "middleware": (agent_of(chat, MoAMiddleware(panel(chat))), []),
        "review": (agent_of(chat, MoAMiddleware(panel(chat), "final")), []),
        "model": (create_agent(ChatMoA(graph=panel(chat)), tools=[]), [ProposalStream]),
        "tool": (agent_of(chat, tools=[consult_tool(panel(chat))], steps=1), [ProposalStream]),
        "graph": (panel(chat), [ProposalStream]),
    }


@pytest.mark.parametrize("face", ["middleware", "review", "model", "tool", "graph"])
async def test_an_event_stream_has_each_proposal_once(chat, server, face):
    runnable, own = _faces(chat)[face]
    options: dict[str, Any] = {"transformers": own} if own else {}
    stream = await runnable.astream_events({"messages": "x"}, version="v3", **options)
    proposals = [p async for p in stream.extensions["proposals"]]
    assert sorted(p["proposer"] for p in proposals) == ["a", "b", "c"]
    assert all(p["status"] == "ok" and p["content"] for p in proposals)
    stream = runnable.stream_events({"messages": "y"}, version="v3", **options)
    assert sorted(p["proposer"] for p in stream.extensions["proposals"]) == ["a", "b", "c"]


# --- what is refused -----------------------------------------------------------------------------


def test_wrong_arguments_are_refused(chat):
    moa = panel(chat)
    with pytest.raises(TypeError, match=r"MoAMiddleware\(moa=…\) must be a graph of create_moa"):
        MoAMiddleware(chat("a"))
    with pytest.raises(TypeError, match=r"consult_tool\(moa=…\) must be a graph of create_moa"):
        consult_tool(ChatMoA(graph=moa))
    with pytest.raises(ValueError, match=r'consult=\'always\'\) must be "turn", "final", or a fun'):
        MoAMiddleware(moa, consult="always")
    for make in (MoAMiddleware, consult_tool):
        with pytest.raises(ValueError, match=r"max_uses=0\) must be at least 1"):
            make(moa, max_uses=0)
        for value in (1.5, "3", True):
            with pytest.raises(TypeError, match=r"max_uses=.*must be an integer"):
                make(moa, max_uses=value)
    for progressive in (Staircase(), Chunkwise()):
        with pytest.raises(ValueError, match="needs whole proposals"):
            MoAMiddleware(panel(chat, progressive=progressive))


def test_messages_of_the_agent_are_not_changed(chat):
    given: list[BaseMessage] = [HumanMessage("x", id="1")]
    agent_of(chat, MoAMiddleware(panel(chat))).invoke({"messages": given})
    assert given == [HumanMessage("x", id="1")]


# --- found by trying to break it -----------------------------------------------------------------


class Pick(AgentMiddleware):
    """Calls another model than the agent's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model=self.model))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model=self.model))


@pytest.mark.parametrize("inside", ["another model", "a fallback"])
async def test_no_middleware_inside_shows_the_draft(chat, server, inside):
    server.answers.update(act="the answer", other="the answer")
    other = Pick(chat("other?steps=1")) if inside == "another model" else None
    fallback = ModelFallbackMiddleware(chat("other?steps=1"))
    agent = create_agent(
        chat("act?steps=1&status=500" if inside == "a fallback" else "act?steps=1"),
        tools=[search],
        middleware=[MoAMiddleware(panel(chat), "final"), other or fallback],
    )
    for events in (
        [e async for e in agent.astream({"messages": "x"}, stream_mode="messages")],
        list(agent.stream({"messages": "x"}, stream_mode="messages")),
    ):
        assert "".join(c.text for c, _ in events if c.type.startswith("AI")) == "the answer"


async def test_a_system_prompt_that_changes_is_no_new_question(chat, server):
    steps = iter(range(100))

    @dynamic_prompt
    def prompt(request: Any) -> str:
        return f"Step {next(steps)}."

    for options in ({}, {"max_uses": 1}):
        server.reset()
        own = MoAMiddleware(panel(chat), **options)
        agent = create_agent(chat("act?steps=2"), tools=[search], middleware=[prompt, own])
        await agent.ainvoke({"messages": "x"})
        assert asked(server) == {"a": 1, "b": 1, "c": 1, "act": 3}


async def test_a_repeated_call_does_not_ask_again_for_a_function(chat, server):
    own = MoAMiddleware(panel(chat), lambda messages: True)
    agent = create_agent(
        chat("act?steps=1&fail_first=1"),
        tools=[search],
        middleware=[ModelRetryMiddleware(initial_delay=0), own],
    )
    await agent.ainvoke({"messages": "x"})
    assert asked(server) == {"a": 2, "b": 2, "c": 2, "act": 3}


def test_a_sync_agent_inside_an_async_proposer_is_refused(chat):
    inner = agent_of(chat, MoAMiddleware(panel(chat)), steps=0)

    async def blocking(messages: Any) -> Any:
        return inner.invoke({"messages": "hi"})["messages"][-1]

    proposer = RunnableLambda(lambda messages: AIMessage("x"), afunc=blocking)
    moa = create_moa(Layer([proposer, chat("b")], quorum=2), chat("agg"))
    state = moa.invoke({"messages": "x"})
    assert (
        "from inside" in state["proposals"][0]["error"] or "await" in state["proposals"][0]["error"]
    )


async def test_a_replayed_turn_writes_a_draft_of_its_own(chat, server):
    saver = InMemorySaver()
    agent = agent_of(chat, MoAMiddleware(panel(chat), "final"), steps=1, checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "1"}}
    await agent.ainvoke({"messages": "x"}, config)
    first = [s async for s in agent.aget_state_history(config) if s.next == ("model",)][-1]
    server.reset()
    await agent.ainvoke(None, first.config)
    assert "Your draft" not in str(server.of("act")[0].messages)
    assert asked(server)["act"] == 2  # the review of the same conversation is kept


@modes
async def test_a_draft_is_the_answer_if_the_call_after_its_review_fails(chat, server, mode):
    server.answers["act"] = "the answer"
    model = chat("act?steps=0&slow_second=9", timeout=1)
    agent = create_agent(model, tools=[search], middleware=[MoAMiddleware(panel(chat), "final")])
    state = await answer(agent, {"messages": "x"}, mode)
    assert state["messages"][-1].text == "the answer"
    assert state["moa"]["error"]
    assert len(state["moa"]["proposals"]) == 3


async def test_settings_may_be_a_dict_and_are_checked(chat, server):
    own = MoAMiddleware(panel(chat), context={"proposer_temperature": 0.3})
    await agent_of(chat, own, steps=0).ainvoke({"messages": "x"})
    assert server.of("a")[0].body["temperature"] == 0.3
    with pytest.raises(ValueError, match="unknown field 'temperature'"):
        MoAMiddleware(panel(chat), context={"temperature": 0.3})
    with pytest.raises(TypeError, match=r"context=3\) must be a MoAContext"):
        MoAMiddleware(panel(chat), context=3)
    assert copy.deepcopy(own) is own


@dataclass
class DataState:
    messages: Annotated[list[Any], add_messages] = field(default_factory=list)


class ModelState(BaseModel):
    messages: Annotated[list[Any], add_messages] = []


@pytest.mark.parametrize("state", [DataState, ModelState])
async def test_the_tool_works_with_every_kind_of_state(chat, server, state):
    graph = StateGraph(state)
    graph.add_node("tools", ToolNode([consult_tool(panel(chat), max_uses=1)]))
    call = {"name": "consult", "args": {"question": "q"}, "id": "1"}
    made = graph.add_edge(START, "tools").compile()
    answered = await made.ainvoke(
        {"messages": [HumanMessage("x"), AIMessage("", tool_calls=[call])]}
    )
    assert answered["messages"][-1].text == "agg: q"


async def test_equal_ids_of_calls_do_not_lift_the_limit(chat, server):
    call = {"name": "consult", "args": {"question": "q"}, "id": "call_0"}
    asks = AIMessage("", tool_calls=[call])
    node = ToolNode([consult_tool(panel(chat), max_uses=1)])
    graph = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools").compile()
    messages: list[Any] = [HumanMessage("x"), asks]
    for number in (1, 2):
        state = await graph.ainvoke({"messages": messages})
        messages = [*messages, state["messages"][-1], asks.model_copy(update={"id": str(number)})]
    assert asked(server)["agg"] == 1


async def test_a_panel_that_fails_is_a_failed_result_of_the_tool(chat, server):
    moa = create_moa([chat("a?status=400")], chat("agg"))
    agent = agent_of(chat, tools=[consult_tool(moa)], steps=1)
    state = await agent.ainvoke({"messages": "x"})
    (result,) = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert result.status == "error"
    assert "Layer 1 gave 0 usable proposals of 1" in result.text
    assert state["messages"][-1].text


@modes
@pytest.mark.parametrize("consult", ["turn", "final"])
async def test_the_same_question_asked_again_in_a_thread_is_another_turn(
    chat, server, consult, mode
):
    own = MoAMiddleware(panel(chat), consult)
    agent = agent_of(chat, own, steps=1, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        await answer(agent, {"messages": "continue"}, mode, config)
    assert asked(server)["a"] == 2
