"""ChatMoA wherever LangChain takes a chat model."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from moa_graph import ChatMoA, MoAContext, NotEnoughProposals, Proposer, create_moa
from tests.fake_server import eventually
from tests.sampling import sampled

ANSWER = "The cat sat on the mat and was content with it."


@tool
def double(number: int) -> int:
    """Double a number."""
    return number * 2


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@pytest.fixture
def moa(chat, server):
    server.answers["agg"] = ANSWER
    return create_moa([chat("a"), chat("b")], chat("agg"))


@pytest.fixture
def loud(chat, server):
    server.answers["agg"] = ANSWER
    return create_moa([chat("a"), chat("b")], chat("agg"), stream_proposals=True)


# --- tokens, exactly once ----------------------------------------------------------------------


def _embed(graph: Any, place: str) -> Any:
    """A graph whose stream must show every token of the answer exactly once."""
    if place == "graph":
        return graph
    outer = StateGraph(MessagesState)
    if place == "subgraph":
        outer.add_node("moa", graph)
    elif place == "chain in a node":
        prompt = ChatPromptTemplate([("placeholder", "{messages}")])
        chain = prompt | ChatMoA(graph=graph) | StrOutputParser()

        async def acall(state, config):
            return {"messages": AIMessage(await chain.ainvoke(state, config), id="from-chain")}

        def call(state, config):
            return {"messages": AIMessage(chain.invoke(state, config), id="from-chain")}

        outer.add_node("moa", RunnableLambda(call, acall))
    elif place == "agent":
        outer.add_node("moa", create_agent(ChatMoA(graph=graph), tools=[]))
    elif place == "model node":
        model = ChatMoA(graph=graph)

        async def answer(state):
            return {"messages": await model.ainvoke(state["messages"])}

        outer.add_node(
            "moa", RunnableLambda(lambda s: {"messages": model.invoke(s["messages"])}, answer)
        )
    outer.add_edge(START, "moa")
    return outer.compile()


async def _stream(graph: Any, mode: str, **kwargs: Any) -> list[tuple[Any, dict]]:
    given = {"messages": [HumanMessage("hi")]}
    if mode == "astream":
        parts = [part async for part in graph.astream(given, stream_mode="messages", **kwargs)]
    else:
        parts = await asyncio.to_thread(
            lambda: list(graph.stream(given, stream_mode="messages", **kwargs))
        )
    return [part[1] if kwargs.get("subgraphs") else part for part in parts]


PLACES = ["graph", "subgraph", "chain in a node", "agent", "model node"]


@pytest.mark.parametrize("mode", ["stream", "astream"])
@pytest.mark.parametrize("subgraphs", [True, False])
@pytest.mark.parametrize("place", PLACES)
async def test_every_token_of_the_answer_once_and_no_proposers(moa, place, subgraphs, mode):
    parts = await _stream(_embed(moa, place), mode, subgraphs=subgraphs)
    texts = [m.text for m, _ in parts if isinstance(m, AIMessage) and m.id != "from-chain"]
    if subgraphs or place in ("graph", "chain in a node", "model node"):
        assert len([t for t in texts if t]) == len(ANSWER.split())
    assert "".join(texts) == ANSWER


@pytest.mark.parametrize("mode", ["stream", "astream"])
@pytest.mark.parametrize("place", PLACES)
async def test_stream_proposals_adds_the_proposers_tokens_told_apart(loud, place, mode):
    parts = await _stream(_embed(loud, place), mode, subgraphs=True)
    said: dict[str | None, str] = {}
    for message, metadata in parts:
        if message.id != "from-chain":
            who = metadata.get("moa_proposer")
            said[who] = said.get(who, "") + message.text
    assert said == {"a": "a: hi", "b": "b: hi", None: ANSWER}
    assert all(metadata["moa_layer"] == 1 for _, metadata in parts if "moa_proposer" in metadata)


@pytest.mark.parametrize(("place", "mode"), sampled([*PLACES, "chain"], ["stream", "astream"]))
async def test_the_first_token_comes_when_the_aggregators_does(chat, server, place, mode):
    server.answers["agg"] = "word " * 20
    graph = create_moa([chat("a")], chat("agg?tps=40"))
    seen: list[float] = []
    if place == "chain":
        chain = ChatPromptTemplate([("human", "{q}")]) | ChatMoA(graph=graph) | StrOutputParser()

        async def tokens():
            if mode == "astream":
                async for token in chain.astream({"q": "hi"}):
                    yield token
            else:
                for token in chain.stream({"q": "hi"}):
                    yield token
    else:
        outer = _embed(graph, place)
        options = {"stream_mode": "messages", "subgraphs": True}

        async def tokens():
            if mode == "astream":
                async for _, (message, _) in outer.astream({"messages": "hi"}, **options):
                    yield message.text
            else:
                for _, (message, _) in outer.stream({"messages": "hi"}, **options):
                    yield message.text

    async for token in tokens():
        seen += [time.monotonic()] * bool(token.strip())
    call = server.of("agg")[0]
    await eventually(lambda: call.ended)
    # Half the tokens are a quarter of a second: far more than any overhead, on any machine.
    assert seen[0] - call.first_token < (call.ended - call.first_token) / 2
    assert len([t for t in seen if t < call.ended]) > 10


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_a_chain_streams_the_answer(moa, mode):
    chain = ChatPromptTemplate([("human", "{q}")]) | ChatMoA(graph=moa) | StrOutputParser()
    if mode == "astream":
        tokens = [token async for token in chain.astream({"q": "hi"})]
    else:
        tokens = list(chain.stream({"q": "hi"}))
    assert "".join(tokens) == ANSWER
    assert len([t for t in tokens if t]) == len(ANSWER.split())


async def test_an_aggregator_that_does_not_stream_still_answers_once(chat, server):
    server.answers["agg"] = "agg: hi"
    agent = create_agent(chat("agg"), tools=[])
    for aggregator in (
        agent,
        RunnableLambda(lambda _: "whole"),
        chat("agg", disable_streaming=True),
    ):
        model = ChatMoA(graph=create_moa([chat("a")], aggregator))
        chunks = [chunk async for chunk in model.astream("hi")]
        text = "".join(chunk.text for chunk in chunks)
        assert text in ("agg: hi", "whole")
        assert [c.chunk_position for c in chunks][-1] == "last"


async def test_stopping_early_closes_the_aggregators_request(chat, server):
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg?tps=20")))
    server.answers["agg"] = "word " * 100
    stream = model.astream("hi")
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    await eventually(lambda: server.of("agg")[0].disconnected)


def test_tools_of_a_call_do_not_reach_a_mixture_inside_an_agent(chat, server):
    inner = create_moa([chat("inner-a")], chat("inner"))

    def ask(state: MessagesState, config: RunnableConfig):
        return inner.invoke({"messages": state["messages"]}, config)

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("again", inner)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "again")
    model = ChatMoA(graph=create_moa([Proposer(builder.compile(), name="p")], chat("agg")))
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert model.invoke("hi", tools=[tool]).tool_calls
    assert "tools" in server.of("agg")[0].body
    assert not any("tools" in call.body for call in server.of("inner"))


# --- the message -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"])
async def test_the_message_carries_the_total_and_the_record(moa, server, mode):
    model = ChatMoA(graph=moa)
    with get_usage_metadata_callback() as counted:
        if mode == "invoke":
            message = model.invoke("hi")
        elif mode == "ainvoke":
            message = await model.ainvoke("hi")
        elif mode == "stream":
            message = _sum(list(model.stream("hi")))
        elif mode == "astream":
            message = _sum([chunk async for chunk in model.astream("hi")])
        elif mode == "batch":
            (message,) = model.batch(["hi"])
        else:
            (message,) = await model.abatch(["hi"])
    assert message.text == ANSWER
    assert set(counted.usage_metadata) == {"a", "b", "agg"}
    assert len(server.calls) == 3
    total = sum(usage["total_tokens"] for usage in counted.usage_metadata.values())
    assert message.usage_metadata["total_tokens"] == total
    record = message.response_metadata["moa"]
    assert [p["proposer"] for p in record["proposals"]] == ["a", "b"]
    assert record["aggregator"]["model"] == "agg"
    parts = [*(p["usage"] for p in record["proposals"]), record["aggregator"]["usage"]]
    assert sum(usage["total_tokens"] for usage in parts) == total
    assert message.response_metadata["model_name"] == "agg"


def _sum(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("place", PLACES)
async def test_usage_is_counted_once_wherever_it_is(moa, server, place, mode):
    graph = _embed(moa, place)
    with get_usage_metadata_callback() as counted:
        if mode == "invoke":
            await graph.ainvoke({"messages": [HumanMessage("hi")]})
        else:
            await _stream(graph, "astream", subgraphs=True)
    assert sorted(server.labels()) == ["a", "agg", "b"]
    assert {name: u["input_tokens"] for name, u in counted.usage_metadata.items()} == {
        "a": 1,
        "b": 1,
        "agg": counted.usage_metadata["agg"]["input_tokens"],
    }
    assert counted.usage_metadata["agg"]["output_tokens"] == len(ANSWER.split())


async def test_it_keeps_nothing_between_calls_and_changes_no_input(chat, server):
    graph = create_moa([chat("a")], chat("agg"), checkpointer=InMemorySaver())
    model = ChatMoA(graph=graph)
    question = HumanMessage("hi")
    for _ in range(2):
        await model.ainvoke([question, question])
    assert question.id is None
    assert [len(call.messages) for call in server.of("a")] == [2, 2]


async def test_inside_a_thread_of_a_parent_graph_it_stays_out_of_its_checkpoints(moa):
    agent = create_agent(ChatMoA(graph=moa), tools=[], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for turn in range(2):
        state = await agent.ainvoke({"messages": f"turn {turn}"}, thread)
    assert len(state["messages"]) == 4
    assert set((await agent.aget_state(thread)).values) == {"messages"}


# --- tools, schemas, options ---------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["plain", "fallbacks", "retry", "config", "prompt"])
async def test_tools_go_to_the_aggregator_alone(chat, server, wrap):
    aggregator = {
        "plain": lambda: chat("agg"),
        "fallbacks": lambda: chat("down?status=500").with_fallbacks([chat("agg")]),
        "retry": lambda: chat("agg").with_retry(),
        "config": lambda: chat("agg").with_config(tags=["mine"]),
        "prompt": lambda: ChatPromptTemplate([("placeholder", "{messages}")]) | chat("agg"),
    }[wrap]()
    model = ChatMoA(graph=create_moa([chat("a")], aggregator))
    for answer in (
        model.bind_tools([double], tool_choice="double").invoke("What is 21 twice?"),
        await model.bind_tools([double]).ainvoke("What is 21 twice?"),
        _sum([c async for c in model.bind_tools([double]).astream("What is 21 twice?")]),
    ):
        assert [(c["name"], c["args"]) for c in answer.tool_calls] == [("double", {"number": 21})]
    assert all("tools" not in call.body for call in server.of("a"))
    assert server.of("agg")[0].body["tool_choice"]["function"]["name"] == "double"


async def test_an_agent_works_with_its_tools(chat, server):
    agent = create_agent(ChatMoA(graph=create_moa([chat("a")], chat("agg"))), tools=[double])
    with get_usage_metadata_callback() as counted:
        state = await agent.ainvoke({"messages": "What is 21 twice?"})
    assert [type(m).__name__ for m in state["messages"]] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ]
    assert state["messages"][2].text == "42"
    told = sum(m.usage_metadata["total_tokens"] for m in state["messages"][1::2])
    assert told == sum(u["total_tokens"] for u in counted.usage_metadata.values())


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("include_raw", [False, True])
async def test_structured_output_is_the_aggregators_own(chat, server, method, include_raw):
    server.answers["agg"] = '{"name": "text", "age": 7}' if method == "json_mode" else ""
    started: list[dict] = []

    class Starts(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, *, options=None, **kwargs):
            started.append(options or {})

    model = ChatMoA(graph=create_moa([chat("a")], chat("agg")))
    chain = model.with_structured_output(Person, method=method, include_raw=include_raw)
    for result in (
        chain.invoke("Who is 7?", {"callbacks": [Starts()]}),
        await chain.ainvoke("Who is 7?"),
    ):
        assert (result["parsed"] if include_raw else result) == Person(name="text", age=7)
    assert "response_format" not in server.of("a")[0].body
    assert "tools" not in server.of("a")[0].body
    # LangChain's standard test asks this of the model's own run; those inside are plain calls.
    schemas = [
        o["ls_structured_output_format"] for o in started if o.get("ls_structured_output_format")
    ]
    assert len(schemas) == 1
    assert schemas[0]["kwargs"]["method"] == method


async def test_an_agent_gives_structured_responses(chat, server):
    server.answers["agg"] = ""
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg")))
    for response_format in (Person, ToolStrategy(Person)):
        agent = create_agent(model, tools=[], response_format=response_format)
        state = await agent.ainvoke({"messages": "Who is 7?"})
        assert state["structured_response"] == Person(name="text", age=7)


async def test_call_options_reach_the_aggregator(chat, server):
    model = ChatMoA(
        graph=create_moa([chat("a")], chat("agg")), temperature=0.3, max_tokens=9, stop=["STOP"]
    )
    await model.ainvoke("hi")
    await model.ainvoke("hi", stop=["END"], top_p=0.5, temperature=0.8)
    first, second = (call.body for call in server.of("agg"))
    assert (first["temperature"], first["max_completion_tokens"], first["stop"]) == (
        0.3,
        9,
        ["STOP"],
    )
    assert (second["temperature"], second["top_p"], second["stop"]) == (0.8, 0.5, ["END"])
    assert all("stop" not in c.body and "top_p" not in c.body for c in server.of("a"))


async def test_options_of_one_mixture_do_not_reach_another_inside(chat, server):
    inner = create_moa([chat("in")], chat("inner"))
    model = ChatMoA(graph=create_moa([inner], chat("agg"))).bind_tools([double])
    await model.ainvoke("What is 21 twice?")
    assert "tools" not in server.of("inner")[0].body
    assert "tools" in server.of("agg")[0].body


async def test_its_context_tunes_every_call(chat, server):
    context = MoAContext(proposer_temperature=0.9, aggregation_prompt="Combine:")
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg")), context=context)
    await model.ainvoke("hi")
    assert server.of("a")[0].body["temperature"] == 0.9
    assert server.of("agg")[0].system.startswith("Combine:")


def test_tools_are_refused_where_nothing_takes_them(chat):
    model = ChatMoA(graph=create_moa([chat("a")], RunnableLambda(lambda _: "x")))
    with pytest.raises(ValueError, match="not a chat model"):
        model.bind_tools([double])
    with pytest.raises(ValueError, match="not a chat model"):
        model.with_structured_output(Person)
    fake = GenericFakeChatModel(messages=iter([]))
    with pytest.raises(NotImplementedError):
        ChatMoA(graph=create_moa([chat("a")], fake)).bind_tools([double])


def test_only_a_graph_of_ours_is_taken(chat):
    other = create_agent(chat("a"), tools=[])
    for wrong in (other, "moa", None, chat("a")):
        with pytest.raises(TypeError, match="create_moa"):
            ChatMoA(graph=wrong)


def test_it_can_do_what_its_aggregator_can(chat):
    profile = {"max_input_tokens": 1234, "tool_calling": True}
    model = ChatMoA(graph=create_moa([chat("a")], chat("agg", profile=profile)))
    assert model.profile == profile


async def test_langchains_cache_does_not_mix_up_mixtures(chat, server):
    set_llm_cache(InMemoryCache())
    try:
        one = ChatMoA(graph=create_moa([chat("a")], chat("agg")), cache=True)
        two = ChatMoA(graph=create_moa([chat("b")], chat("other")), cache=True)
        texts = [(await model.ainvoke("hi")).text for model in (one, two, one)]
        assert texts == ["agg: hi", "other: hi", "agg: hi"]
        assert len(server.calls) == 4
    finally:
        set_llm_cache(None)


@pytest.mark.parametrize("mode", ["abatch", "astream"])
async def test_runs_inside_are_children_of_the_models_run(moa, mode):
    parents: dict[Any, Any] = {}
    names: dict[Any, str] = {}

    class Tree(BaseCallbackHandler):
        def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, **kwargs):
            parents[run_id], names[run_id] = parent_run_id, kwargs["name"]

        def on_chat_model_start(
            self, serialized, messages, *, run_id, parent_run_id=None, **kwargs
        ):
            parents[run_id] = parent_run_id
            names[run_id] = (serialized or {}).get("name") or kwargs.get("name")

    graph, inputs = _embed(moa, "agent"), [{"messages": "1"}, {"messages": "2"}]
    if mode == "abatch":
        await graph.abatch(inputs, {"callbacks": [Tree()]})
    else:
        for given in inputs:
            async for _ in graph.astream(given, {"callbacks": [Tree()]}, stream_mode="messages"):
                pass

    def path(run_id):
        return [] if run_id is None else [*path(parents[run_id]), names[run_id]]

    paths = [path(run_id) for run_id in names]
    chain = ["LangGraph", "moa", "LangGraph", "model", "ChatMoA", "moa"]
    assert paths.count([*chain, "layer_1_a", "ChatOpenAI"]) == 2
    assert paths.count([*chain, "layer_1_b", "ChatOpenAI"]) == 2
    assert paths.count([*chain, "aggregator", "ChatOpenAI"]) == 2


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_an_agent_that_proposes_stays_out_of_the_stream(chat, server, mode):
    server.answers["agg"] = ANSWER
    agent = create_agent(chat("agent"), tools=[double])
    parts = await _stream(create_moa([agent], chat("agg")), mode, subgraphs=True)
    assert "".join(message.text for message, _ in parts) == ANSWER


async def test_all_chunks_of_an_answer_have_its_id(moa):
    chunks = [chunk async for chunk in ChatMoA(graph=moa).astream("hi")]
    assert len({chunk.id for chunk in chunks}) == 1
    agent = create_agent(ChatMoA(graph=moa), tools=[])
    ids, state = set(), None
    modes = ["messages", "values"]
    async for mode, event in agent.astream({"messages": "hi"}, stream_mode=modes):
        if mode == "values":
            state = event
        else:
            ids.add(event[0].id)
    assert ids == {state["messages"][-1].id}


@pytest.mark.parametrize("place", ["proposer", "aggregator"])
async def test_a_mixture_inside_a_mixture_is_counted_and_told_once(chat, server, place):
    inner = ChatMoA(graph=create_moa([chat("in")], chat("inner")))
    proposer, aggregator = (inner, chat("b")) if place == "proposer" else (chat("b"), inner)
    model = ChatMoA(graph=create_moa([proposer], aggregator))
    for mode in ("ainvoke", "astream"):
        server.reset()
        with get_usage_metadata_callback() as counted:
            if mode == "ainvoke":
                message = await model.ainvoke("hi")
            else:
                message = _sum([chunk async for chunk in model.astream("hi")])
        total = sum(usage["total_tokens"] for usage in counted.usage_metadata.values())
        assert message.usage_metadata["total_tokens"] == total
        assert len(message.response_metadata["moa"]["proposals"]) == 1
        assert sorted(server.labels()) == ["b", "in", "inner"]


async def test_calls_at_once_with_tools_and_options_of_their_own_never_mix(chat, server):
    model = ChatMoA(graph=create_moa([chat("a?latency=0.02")], chat("agg?latency=0.01")))

    async def one(number: int) -> None:
        called = await model.bind_tools(
            [{"name": f"tool_{number}", "description": "x", "parameters": {"type": "object"}}]
        ).ainvoke("hi")
        assert [call["name"] for call in called.tool_calls] == [f"tool_{number}"]
        chunks = [chunk async for chunk in model.astream(f"question {number}", stop=["never"])]
        assert _sum(chunks).text == f"agg: question {number}"

    await asyncio.gather(*(one(number) for number in range(25)))
    assert len(server.calls) == 25 * 4


async def test_several_calls_in_one_node_are_several_messages(chat):
    one = ChatMoA(graph=create_moa([chat("a")], chat("agg")))
    two = ChatMoA(graph=create_moa([chat("b")], chat("other")))

    async def node(state):
        both = await asyncio.gather(one.ainvoke("one"), two.ainvoke("two"))
        return {"messages": [*both, await one.ainvoke("three")]}

    outer = StateGraph(MessagesState)
    outer.add_node("node", node)
    outer.add_edge(START, "node")
    graph = outer.compile(checkpointer=InMemorySaver())
    said: dict[str, str] = {}
    thread = {"configurable": {"thread_id": "1"}}
    async for message, _ in graph.astream({"messages": "hi"}, thread, stream_mode="messages"):
        said[message.id] = said.get(message.id, "") + message.text
    assert sorted(said.values()) == ["agg: one", "agg: three", "other: two"]


async def test_fallbacks_and_retries_around_it(chat):
    down = ChatMoA(graph=create_moa([chat("a?status=500")], chat("agg")))
    up = ChatMoA(graph=create_moa([chat("b")], chat("other")))
    flaky = ChatMoA(graph=create_moa([chat("c?fail_first=1")], chat("third")))
    assert (await down.with_fallbacks([up]).ainvoke("hi")).text == "other: hi"
    assert (await flaky.with_retry(wait_exponential_jitter=False).ainvoke("hi")).text == "third: hi"
    for fails in (lambda: down.invoke("hi"), lambda: list(down.stream("hi"))):
        with pytest.raises(NotEnoughProposals):
            await asyncio.to_thread(fails)
