"""Frameworks of agents that run on a mixture, or with its advice."""

from __future__ import annotations

from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm

from moa_graph import ChatMoA, MoAMiddleware, create_moa
from tests.fake_server import FakeServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

modes = pytest.mark.parametrize("mode", ["sync", "async"])
faces = pytest.mark.parametrize("face", ["model", "middleware"])
CONFIG: Any = {"configurable": {"thread_id": "1"}}


@tool
def search(query: str) -> str:
    """Search the web for a text."""
    return f"results for {query}"


def asked(server: FakeServer) -> dict[str, int]:
    labels = server.labels()
    return {label: labels.count(label) for label in sorted(set(labels))}


async def answer(agent: Any, given: Any, mode: str) -> dict[str, Any]:
    return agent.invoke(given, CONFIG) if mode == "sync" else await agent.ainvoke(given, CONFIG)


def brain(chat, face: str, acting: str, names: str = "ab") -> dict[str, Any]:
    """The model of an agent and its middleware."""
    moa = create_moa([chat(f"{name}?strict") for name in names], chat(acting))
    if face == "model":
        return {"model": ChatMoA(graph=moa)}
    return {"model": chat(acting), "middleware": [MoAMiddleware(moa)]}


@modes
@faces
async def test_deepagents(chat, server, face, mode):
    agent = create_deep_agent(
        **brain(chat, face, "act?steps=3"), tools=[search], checkpointer=InMemorySaver()
    )
    state = await answer(agent, {"messages": "What is it?"}, mode)
    assert state["messages"][-1].text.startswith("act: What is it?")
    assert asked(server) == {"a": 1, "act": 4, "b": 1}
    await answer(agent, {"messages": "And now?"}, mode)
    assert asked(server) == {"a": 2, "act": 8, "b": 2}
    assert "- search: Search the web for a text." in server.of("a")[0].system
    agent = create_deep_agent(
        **brain(chat, face, "act?steps=3"), tools=[search], checkpointer=InMemorySaver()
    )
    await answer(agent, {"messages": "What is it?"}, mode)  # in another thread
    assert asked(server) == {"a": 3, "act": 12, "b": 3}


@modes
@faces
async def test_a_supervisor_and_its_agent_have_a_panel_each(chat, server, face, mode):
    expert = create_agent(
        **brain(chat, face, "expert?steps=2", "xy"),
        tools=[search],
        system_prompt="You know it.",
        name="expert",
    )
    # The supervisor of this package takes no middleware: it runs on the mixture itself.
    model = brain(chat, "model", "boss?steps=1")["model"]
    agent = create_supervisor([expert], model=model, prompt="You delegate.").compile(
        checkpointer=InMemorySaver()
    )
    state = await answer(agent, {"messages": "What is it?"}, mode)
    assert state["messages"][-1].text.startswith("boss: What is it?")
    calls = asked(server)
    assert calls["boss"] == 2
    assert calls["expert"] >= 1
    assert {calls[name] for name in "abxy"} == {1}


@modes
@faces
async def test_a_swarm_whose_agents_hand_over(chat, server, face, mode):
    alice = create_agent(
        **brain(chat, face, "alice?steps=1"),
        tools=[create_handoff_tool(agent_name="bob")],
        system_prompt="You are Alice.",
        name="alice",
    )
    bob = create_agent(
        **brain(chat, face, "bob?steps=3", "xy"),
        tools=[search],
        system_prompt="You are Bob.",
        name="bob",
    )
    agent = create_swarm([alice, bob], default_active_agent="alice").compile(
        checkpointer=InMemorySaver()
    )
    state = await answer(agent, {"messages": "What is it?"}, mode)
    assert state["messages"][-1].text.startswith("bob: What is it?")
    calls = asked(server)
    assert calls["alice"] == 1
    assert {calls[name] for name in "abxy"} == {1}
    await answer(agent, {"messages": "And now?"}, mode)
    calls = asked(server)
    assert [calls[name] for name in "abxy"] == [1, 1, 2, 2]
