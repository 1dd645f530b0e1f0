"""Wherever a looping graph is put: each token once, each call counted once."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import START, MessagesState, StateGraph

from moa_graph import ChatMoA
from moa_graph.strategies import Staircase
from moa_graph.strategies.experimental import Chunkwise
from tests.mixtures import mixture_of

QUESTION = {"messages": "What is a cat?"}
TEXT = " ".join(f"w{i}" for i in range(150))
OPTIONS = [{"progressive": Staircase()}, {"progressive": Chunkwise(32)}]


@pytest.fixture(params=OPTIONS, ids=["staircase", "chunkwise"])
def graph(request, chat, server):
    server.answer_all = TEXT
    proposers = [chat("a?writes"), chat("b?writes")]
    return mixture_of(proposers, chat("agg?writes"), layers=3, **request.param)


def parent_of(graph):
    builder = StateGraph(MessagesState)
    builder.add_node("advise", graph)
    builder.add_edge(START, "advise")
    return builder.compile()


@pytest.mark.parametrize("subgraphs", [False, True])
async def test_as_a_subgraph_a_token_comes_once(graph, subgraphs):
    events = parent_of(graph).astream(QUESTION, stream_mode="messages", subgraphs=subgraphs)
    messages = [(event[1] if subgraphs else event)[0] async for event in events]
    assert "".join(message.text for message in messages) == TEXT
    assert len({message.id for message in messages}) == 1
    assert (len(messages) > 100) == subgraphs  # LangGraph shows a subgraph's tokens on request
    sync = parent_of(graph)
    stream = await asyncio.to_thread(lambda: list(sync.stream(QUESTION, stream_mode="messages")))
    assert "".join(message.text for message, _ in stream) == TEXT


async def test_in_a_chain_and_among_events(graph):
    chain = ChatPromptTemplate([("human", "{question}")]) | graph
    assert (await chain.ainvoke({"question": "?"}))["messages"][-1].text == TEXT
    told = ""
    async for event in graph.astream_events(QUESTION, version="v2"):
        if (
            event["event"] == "on_chat_model_stream"
            and event["metadata"].get("langgraph_node") == "aggregator"
        ):
            told += event["data"]["chunk"].text
    assert told == TEXT


async def test_usage_is_counted_once(graph, server):
    model = ChatMoA(graph=graph)
    for streams in (False, True):
        server.calls.clear()
        with get_usage_metadata_callback() as callback:
            answer = None
            if streams:
                async for chunk in model.astream("What is a cat?"):
                    answer = chunk if answer is None else answer + chunk
            else:
                answer = await model.ainvoke("What is a cat?")
        written = sum(call.usage["completion_tokens"] for call in server.calls)
        counted = sum(usage["output_tokens"] for usage in callback.usage_metadata.values())
        assert written == counted == answer.usage_metadata["output_tokens"]
        assert answer.text == TEXT
