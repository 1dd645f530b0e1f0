"""The mixture that a run asks for, as LangGraph Server and as Aegra tell it to the factories."""

from __future__ import annotations

import pytest
from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime

from moa_graph.server import graphs
from moa_graph.server.assistants import RunContext, check_given, mixture

OWN = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
TOOLS = [{"type": "function", "function": {"name": "search"}}]


def runtime(context):
    return _ExecutionRuntime(access_context="threads.create_run", store=None, context=context)


def langgraph(own, asked):
    """Configuration and runtime of a run on LangGraph Server."""
    merged = {**own, **asked}
    return {"configurable": {**merged, "thread_id": "1"}}, runtime(merged)


def aegra(own, asked):
    """The same on Aegra, for a run whose request has a context."""
    return {"configurable": {**own, "thread_id": "1"}}, runtime({**own, **asked})


def aegra_configurable(own, asked):
    """The same on Aegra, for a run whose request has `config.configurable`."""
    return {"configurable": {**(asked or own), "thread_id": "1"}}, runtime({**own, **asked})


def without_context(own, asked):
    """A server that tells the factory no context."""
    return {"configurable": {**own, **asked, "thread_id": "1"}}, runtime(None)


SERVERS = [langgraph, aegra, aegra_configurable, without_context]
SHAPES = {
    "its own": ({}, ["layer_1_a", "layer_1_b", "aggregator"]),
    "other proposers": ({"proposers": ["openai:x"]}, ["layer_1_x", "aggregator"]),
    "another aggregator": (
        {"aggregator": "vote"},
        ["layer_1_a", "layer_1_b", "aggregator"],
    ),
    "more layers": (
        {"layers": 3},
        ["layer_1_a", "layer_1_b", "layer_2_a", "layer_2_b", "aggregator"],
    ),
    "a route": (
        {"route": {"model": "openai:r", "samples": 2}},
        ["first_pass", "layer_1_a", "layer_1_b", "aggregator"],
    ),
    "a temperature": ({"aggregator_temperature": 0.1}, ["layer_1_a", "layer_1_b", "aggregator"]),
}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_run_overrides_its_assistant_field_by_field(server, shape):
    asked, nodes = SHAPES[shape]
    graph = await mixture(*server(OWN, asked))
    assert set(graph.nodes) - {"__start__"} == set(nodes)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("asked", [{"aggregator_options": {"tools": TOOLS}}, {"consult": "turn"}])
async def test_a_run_of_an_agent_can_reuse_proposals(server, asked):
    plain, acting = await mixture(*server(OWN, {})), await mixture(*server(OWN, asked))
    assert acting is not plain


async def test_a_drawing_and_a_thread_have_the_shape_of_the_configuration():
    for context in ("assistants.read", "threads.read", "threads.update"):
        read = _ReadRuntime(access_context=context, store=None)
        graph = await mixture({"configurable": {**OWN, "layers": 3}}, read)
        assert "layer_2_a" in graph.nodes


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "field", ["proposers", "aggregator", "references", "route", "progressive", "limits"]
)
def test_a_preset_is_no_other_mixture(server, field):
    asked = {field: {"window": 100} if field == "references" else ["openai:x"]}
    with pytest.raises(ValueError, match=rf"together is a preset.*{field}"):
        graphs.together(*server({}, asked))


@pytest.mark.parametrize("server", SERVERS)
def test_a_preset_takes_the_settings_of_a_run(server):
    settings = dict.fromkeys(RunContext.model_fields) | {"layers": 2, "timeout": 9}
    graph = graphs.together(*server({"aggregator_temperature": 0.1, "proposers": None}, settings))
    assert "aggregator" in graph.nodes


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"proposers": []}, "proposers=[] is empty"),
        ({"proposers": [{"model": "openai:a", "samples": 2.5}]}, "proposers[0]: samples=2.5 must"),
        ({"proposers": [{"proposers": ["openai:a"], "quorum": 7}]}, "proposers[0]: quorum=7 must"),
        ({"proposers": [{"proposers": ["openai:a"], "hedge": "x"}]}, "proposers[0]: hedge='x'"),
    ],
)
def test_an_error_for_a_client_names_the_fields_of_its_context(context, says):
    with pytest.raises(ValueError, match="The assistant's context: ") as error:
        check_given({**context, "aggregator": "openai:agg"}, whole=True)
    assert says in str(error.value)
    assert "(" not in str(error.value).partition("must")[0]
