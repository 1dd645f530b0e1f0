"""Every capability, in every place where it can be said: Python, a file, an assistant, a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from moa_graph import MoAContext, ProposalCache, create_moa
from moa_graph.nodes.plan import Plan
from moa_graph.presets.configuration import Configuration
from moa_graph.progressive.pieces import Staircase
from moa_graph.server.assistants import check_given, mixture
from moa_graph.strategies.experimental import Chunkwise

M = "openai:m"
PROPOSERS = ["openai:a", "openai:b", "openai:c"]


def layer(**policy: Any) -> dict[str, Any]:
    return {"proposers": {"proposers": PROPOSERS, **policy}}


@dataclass
class Cell:
    """How something is said, and whether it is there; or why it is refused."""

    said: dict[str, Any] | None
    refused: str | None = None


def of_layer(name: str, value: Any, place: str = "it is a field of a layer") -> dict[str, Cell]:
    return {
        "python": Cell(layer(**{name: value})),
        "file": Cell(layer(**{name: value})),
        "assistant": Cell(layer(**{name: value})),
        "context": Cell({name: value}, "set when the graph is built, with a Layer"),
    }


def of_graph(name: str, value: Any, context: str) -> dict[str, Cell]:
    return {
        **{place: Cell({name: value}) for place in ("python", "file", "assistant")},
        "context": Cell({name: value}, context),
    }


def of_python(name: str, value: Any) -> dict[str, Cell]:
    return {
        "python": Cell({name: value}),
        "file": Cell({name: value}, r"cannot be set in a configuration: pass it to create\(\)"),
        "assistant": Cell({name: value}, f"{name} cannot be set for an assistant: "),
        "context": Cell({name: value}, "an argument of create_moa"),
    }


ARGUMENT = "set when the graph is built, with an argument of create_moa"
REFERENCES = "set when the graph is built, with an argument of create_moa"
BOTH = {"openai": 2}
CAPABILITIES: dict[str, tuple[dict[str, Cell], Callable[[Any], bool]]] = {
    "proposers": (
        of_graph("proposers", ["openai:x"], ARGUMENT),
        lambda moa: [m.name for m in moa.plan.members[0]] == ["x"],
    ),
    "aggregator": (
        of_graph("aggregator", "openai:x", ARGUMENT),
        lambda moa: moa.plan.models[-1].name == "x",
    ),
    "layers": (
        {**of_graph("layers", 3, ""), "context": Cell({"layers": 2})},
        lambda moa: moa.plan.layers == 3,
    ),
    "select": (of_layer("select", ["shuffle"]), lambda moa: "select_1" in moa.nodes),
    "until": (
        of_layer("until", {"strategy": "agree", "then": "answer"}),
        lambda moa: "until_1" in moa.nodes,
    ),
    "route": (
        of_graph("route", {"model": "openai:r", "samples": 2}, ARGUMENT),
        lambda moa: "first_pass" in moa.nodes,
    ),
    "staircase": (
        of_graph("progressive", "staircase", ARGUMENT),
        lambda moa: moa.builder.loops and moa.plan.overlaps,
    ),
    "chunkwise": (
        of_graph("progressive", {"strategy": "chunkwise", "first": 8}, ARGUMENT),
        lambda moa: moa.builder.loops and not moa.plan.overlaps,
    ),
    "fenced": (
        of_graph("references", {"fenced": True}, REFERENCES),
        lambda moa: moa.plan.references.fenced,
    ),
    "aggregation_prompt": (
        {
            **of_graph("references", {"prompt": "Merge:"}, ""),
            "context": Cell({"aggregation_prompt": "Merge:"}),
        },
        lambda moa: moa.plan.references.prompt == "Merge:",
    ),
    "context_window": (
        of_graph("references", {"window": 999}, REFERENCES),
        lambda moa: moa.plan.references.window == 999,
    ),
    "min_proposals": (
        {**of_layer("min_proposals", 2)},
        lambda moa: moa.plan.policies[0].min_proposals == 2,
    ),
    "quorum": (
        {**of_layer("quorum", 2), "context": Cell({"quorum": 2})},
        lambda moa: moa.plan.policies[0].quorum.proposals == 2,
    ),
    "hedge": (of_layer("hedge", "2x"), lambda moa: moa.plan.policies[0].hedge.after == "2x"),
    "layer_timeout": (
        {**of_layer("timeout", 9), "context": Cell({"timeout": 9})},
        lambda moa: moa.plan.policies[0].timeout == 9,
    ),
    "run_timeout": (
        {**of_graph("limits", {"timeout": 9}, ""), "context": Cell({"run_timeout": 9})},
        lambda moa: moa.plan.limits.timeout == 9,
    ),
    "budget": (
        {**of_graph("limits", {"tokens": 999}, ""), "context": Cell({"token_budget": 999})},
        lambda moa: moa.plan.limits.tokens == 999,
    ),
    "max_retries": (
        {
            **of_graph("calls", {"retries": 1}, ARGUMENT),
            "assistant": Cell({"calls": {"retries": 1}}, "the server sets"),
        },
        lambda moa: moa.plan.calls.retries == 1,
    ),
    "max_concurrent_calls": (
        {
            **of_graph("calls", {"concurrent": BOTH}, ARGUMENT),
            "assistant": Cell({"calls": {"concurrent": BOTH}}, "the server sets"),
        },
        lambda moa: moa.plan.calls.concurrent == BOTH,
    ),
    "stream_proposals": (
        {
            place: Cell({"stream_proposals": True})
            for place in ("python", "file", "context")
        }
        | {"assistant": Cell({"stream_proposals": True})},
        lambda moa: moa.plan.stream_proposals,
    ),
    "reserve": (
        of_layer("reserve", ["openai:r"]),
        lambda moa: any(model.name == "r" for model in moa.plan.models),
    ),
    "references of a layer": (
        {
            place: Cell({"proposers": [PROPOSERS, {"proposers": PROPOSERS, "references": {
                "fenced": True}}]})
            for place in ("python", "file", "assistant")
        }
        | {"context": Cell({"fenced": True}, "set when the graph is built, with its References")},
        lambda moa: moa.plan.policies[1].references.fenced,
    ),
    "name": (
        {
            "python": Cell({"name": "mine"}),
            "file": Cell({"name": "mine"}),
            "assistant": Cell({"name": "mine"}, "set the name of the assistant"),
            "context": Cell({"name": "mine"}, ARGUMENT),
        },
        lambda moa: moa.name == "mine",
    ),
    "checkpointer": (
        {
            **of_python("checkpointer", InMemorySaver()),
            "file": Cell({"checkpointer": "memory"}, "cannot be set in a configuration: pass it to"),
        },
        lambda moa: moa.checkpointer is not None,
    ),
    "store": (
        {
            **of_python("store", InMemoryStore()),
            "file": Cell({"store": "memory"}, "cannot be set in a configuration: pass it to"),
        },
        lambda moa: moa.store is not None,
    ),
    "cache": (of_python("cache", InMemoryCache()), lambda moa: moa.plan.cache is not None),
    "cache_policy": (
        of_python("cache", ProposalCache(InMemoryCache(), ttl=9)),
        lambda moa: moa.plan.cache is not None,
    ),
    "interrupt_before": (
        of_python("interrupt_before", ["aggregator"]),
        lambda moa: moa.interrupt_before_nodes == ["aggregator"],
    ),
    "interrupt_after": (
        of_python("interrupt_after", ["aggregator"]),
        lambda moa: moa.interrupt_after_nodes == ["aggregator"],
    ),
    "context_schema": (
        of_python("context_schema", MoAContext),
        lambda moa: issubclass(moa.context_schema, MoAContext),
    ),
}  # fmt: skip

CELLS = [
    pytest.param(name, place, id=f"{name}-{place}")
    for name, (cells, _) in CAPABILITIES.items()
    for place in cells
]


@pytest.fixture(autouse=True)
def _key(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)


async def build(place: str, said: dict[str, Any]) -> Any:
    whole = {"proposers": PROPOSERS, "aggregator": M, **said}
    if place == "python":
        return create_moa(**whole)
    if place == "file":
        return Configuration(**whole).create()
    if place == "assistant":
        check_given(whole)
        return await mixture({"configurable": whole})
    MoAContext(**said)
    return create_moa(PROPOSERS, M)


def test_every_capability_is_crossed_with_every_place():
    assert len(CELLS) == 4 * len(CAPABILITIES)


@pytest.mark.parametrize(("name", "place"), CELLS)
async def test_it_can_be_said_there_or_the_reason_is(name, place, server):
    cells, is_there = CAPABILITIES[name]
    cell = cells[place]
    assert cell.said is not None
    if cell.refused is not None:
        with pytest.raises(ValueError, match=cell.refused):
            await build(place, cell.said)
        return
    moa = await build(place, cell.said)
    if place == "context" or (name, place) == ("stream_proposals", "assistant"):
        thread = {"configurable": {"thread_id": "1"}}
        state = await moa.ainvoke({"messages": "hi"}, thread, context=cell.said)
        assert state["messages"][-1].text == "m: hi"
        return
    assert is_there(moa)
    assert isinstance(moa.plan, Plan)
    thread = {"configurable": {"thread_id": "1"}}
    assert (await moa.ainvoke({"messages": "hi"}, thread))["messages"]
    assert server.calls


def test_what_no_capability_is_called_names_the_nearest():
    for place, says in (("layer", "mean 'layers'"), ("quorums", "mean 'quorum'")):
        with pytest.raises(ValueError, match=says):
            MoAContext(**{place: 2})
    assert Staircase().size(0) < Chunkwise().size(0)
