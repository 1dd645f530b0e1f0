"""What a newcomer tries first, and is wrong, is answered by a sentence with the fix."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.types import Overwrite

from moa_graph import (
    ChatMoA,
    Layer,
    MoAContext,
    MoAMiddleware,
    Proposer,
    consult_tool,
    create_moa,
)
from moa_graph.building.compiled import MoAGraph
from moa_graph.presets import load_preset

HI = HumanMessage("hi")
INPUT = 'moa.invoke({"messages": "'
MODELS = "create_moa(['provider:model', …], 'provider:model')"


def says(messages: list[Any]) -> AIMessage:
    return AIMessage(f"{messages[-1].text}!")


@pytest.fixture
def moa() -> MoAGraph:
    return create_moa([Proposer(RunnableLambda(says), name="a")], RunnableLambda(says, name="agg"))


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "batch"])
@pytest.mark.parametrize(
    "given",
    [
        "hi",
        HI,
        [HI],
        ("human", "hi"),
        [("human", "hi")],
        5,
        StringPromptValue(text="hi"),
        {"input": "hi"},
        {"question": "hi"},
        {"message": "hi"},
        {"Messages": "hi"},
        {"messages": None},
        {"messages": 5},
        {"messages": [5]},
        {"messages": {"content": "hi"}},
    ],
    ids=repr,
)
def test_an_input_that_is_none(moa: MoAGraph, given: Any, way: str):
    ways: dict[str, Callable[[], Any]] = {
        "invoke": lambda: moa.invoke(given),
        "ainvoke": lambda: asyncio.run(moa.ainvoke(given)),
        "stream": lambda: list(moa.stream(given)),
        "batch": lambda: moa.batch([given]),
    }
    with pytest.raises((TypeError, ValueError), match=re.escape(INPUT)):
        ways[way]()


@pytest.mark.parametrize(
    "given",
    [
        {"messages": "hi"},
        {"messages": HI},
        {"messages": ["hi"]},
        {"messages": ("human", "hi")},
        {"messages": [("human", "hi")]},
        {"messages": {"role": "user", "content": "hi"}},
        {"messages": Overwrite([HI])},
        {"messages": {"__overwrite__": [HI]}},
        {"messages": "hi", "topic": "greetings"},
        ChatPromptTemplate([("human", "hi")]).invoke({}),
    ],
    ids=repr,
)
def test_an_input_that_is_one(moa: MoAGraph, given: Any):
    assert moa.invoke(given)["messages"][-1].text == "hi!"


MISTAKES: dict[str, tuple[Callable[[MoAGraph], Any], str]] = {
    "a temperature as an argument": (
        lambda moa: moa.invoke({"messages": "hi"}, temperature=1),
        "context=MoAContext(proposer_temperature=1)",
    ),
    "a setting in the configuration": (
        lambda moa: moa.invoke({"messages": "hi"}, {"aggregator_temperature": 1}),
        "context=MoAContext(proposer_temperature=1)",
    ),
    "a context as the configuration": (
        lambda moa: moa.invoke({"messages": "hi"}, MoAContext(layers=2)),
        "context=MoAContext(layers=2)",
    ),
    "no graph": (lambda moa: ChatMoA(), "ChatMoA(graph=create_moa("),
    "a graph without its name": (ChatMoA, "ChatMoA(graph=create_moa("),
    "models": (
        lambda moa: ChatMoA(proposers=["openai:a"], aggregator="openai:b"),
        "Use ChatMoA(graph=create_moa(",
    ),
    "models as the graph": (
        lambda moa: ChatMoA(graph=["openai:a"]),
        "ChatMoA(graph=create_moa(",
    ),
    "a preset's name as the graph": (
        lambda moa: ChatMoA(graph="together"),
        "ChatMoA(graph=load_preset('together').create())",
    ),
    "a preset as the graph": (
        lambda moa: ChatMoA(graph=load_preset("together")),
        "ChatMoA(graph=load_preset(…).create())",
    ),
    "another name for the graph": (lambda moa: ChatMoA(moa=moa), "Did you mean 'graph'?"),
    "a misspelt field": (
        lambda moa: ChatMoA(graph=moa, temprature=1),
        "Did you mean 'temperature'?",
    ),
    "nothing": (lambda moa: create_moa(), f"needs 'proposers' and 'aggregator': {MODELS}"),
    "one model": (lambda moa: create_moa("openai:a"), f"needs 'aggregator': {MODELS}"),
    "a preset": (lambda moa: create_moa("together"), "load_preset(name).create()"),
    "two models": (lambda moa: create_moa("openai:a", "openai:b"), "proposers=[model]"),
    "three models": (
        lambda moa: create_moa("openai:a", "openai:b", "openai:c"),
        f"the rest by name, but has 3 arguments without a name: {MODELS}",
    ),
    "models by another name": (
        lambda moa: create_moa(models=["openai:a"], aggregator="openai:b"),
        "Did you mean 'proposers'?",
    ),
    "an aggregator by another name": (
        lambda moa: create_moa(["openai:a"], synthesizer="openai:b"),
        "Did you mean 'aggregator'?",
    ),
    "a proposer as the aggregator": (
        lambda moa: create_moa(["openai:a"], Proposer("openai:b", temperature=0)),
        "MoAContext(aggregator_temperature=…",
    ),
    "layers by another name": (
        lambda moa: create_moa(["openai:a"], "openai:b", rounds=3),
        "Did you mean 'layers'?",
    ),
    "a proposer without a model": (lambda moa: Proposer(), "Proposer(model, …)"),
    "a role by another name": (
        lambda moa: Proposer("openai:a", system="Be brief."),
        "Did you mean 'prompt'?",
    ),
    "samples by another name": (lambda moa: Proposer("openai:a", n=3), "Did you mean 'samples'?"),
    "a layer without proposers": (lambda moa: Layer(), "Layer(proposers, …)"),
    "a middleware without a mixture": (
        lambda moa: MoAMiddleware(),
        "MoAMiddleware(create_moa([…], aggregator))",
    ),
    "a middleware of a chat model": (
        lambda moa: MoAMiddleware(ChatMoA(graph=moa)),
        "give its graph",
    ),
    "a middleware's argument by another name": (
        lambda moa: MoAMiddleware(moa, when="final"),
        "Did you mean 'consult'?",
    ),
    "a tool without a mixture": (
        lambda moa: consult_tool(),
        "consult_tool(create_moa([…], aggregator))",
    ),
    "a tool of a preset": (
        lambda moa: consult_tool(load_preset("together")),
        "consult_tool(moa=load_preset(…).create())",
    ),
    "models as a preset": (
        lambda moa: load_preset(["openai:a"]),
        "create_moa([model, …], aggregator)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_argument_that_is_none(moa: MoAGraph, mistake: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    wrong, fix = MISTAKES[mistake]
    with pytest.raises(TypeError, match=re.escape(fix)):
        wrong(moa)


def test_a_subclass_has_its_own_arguments(moa: MoAGraph):
    class Named(ChatMoA):
        title: str

    assert Named(graph=moa, title="mine").title == "mine"
    with pytest.raises(TypeError, match="needs 'title'"):
        Named(graph=moa)
