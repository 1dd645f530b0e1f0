"""Requests of runs and assistants, as LangGraph Server and as Aegra tell them to `auth.py`."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import NAMESPACE_DNS, uuid4

import pytest
from langgraph_sdk import Auth

from moa_graph._compat import assistant_of
from moa_graph.server.auth import create_assistants, own_assistants, own_runs

USER = SimpleNamespace(user=SimpleNamespace(identity="local"), action="create_run")
OWN = {"proposers": ["openai:a"], "aggregator": "openai:agg"}
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}


def langgraph(request):
    """What LangGraph Server tells of a run: the context is in `configurable`, too."""
    config = dict(request.get("config") or {})
    if request.get("context"):
        config["configurable"] = {**request["context"], "__context_provided__": True}
    return {"assistant_id": request["assistant_id"], "kwargs": {**request, "config": config}}


def aegra(request):
    return {**request, "thread_id": str(uuid4())}


def command(request):
    """A command of Aegra's event protocol."""
    return {"id": 1, "method": "run.start", "params": request, "thread_id": str(uuid4())}


SERVERS = [langgraph, aegra, command]


async def said(server, **request) -> str | None:
    """Why a run is refused; None if it may start."""
    value = server({"assistant_id": "mixture", "input": MESSAGES, **request})
    try:
        await own_runs(USER, value)
    except Auth.exceptions.HTTPException as error:
        return f"{error.status_code}: {error.detail}"
    return None


@pytest.mark.parametrize("server", SERVERS)
async def test_a_right_run_may_start(server):
    assert await said(server) is None
    assert await said(server, context={**OWN, "layers": 3}) is None
    assert await said(server, context=OWN, config={"tags": ["a"], "metadata": {"b": {}}}) is None
    assert await said(server, config={"configurable": {**OWN, "thread_id": "1"}}) is None
    number = str(uuid4())
    config = {"recursion_limit": 9, "max_concurrency": 2, "run_name": "x", "run_id": number}
    assert await said(server, config=config) is None
    assert await said(server, config=dict.fromkeys([*config, "tags", "callbacks"])) is None


WRONG = {
    "configurable must be an object": {"config": {"configurable": [1]}},
    "config must be an object": {"config": "x"},
    "context must be an object": {"context": [1]},
    "config.recursion_limit must be an integer": {"config": {"recursion_limit": True}},
    "config.max_concurrency must be an integer": {"config": {"max_concurrency": 0}},
    "config.tags must be a list of strings": {"config": {"tags": "x"}},
    "config.metadata must be an object": {"config": {"metadata": "x"}},
    "config.run_name must be a string": {"config": {"run_name": 1}},
    "config.run_id must be a UUID": {"config": {"run_id": "x"}},
    "config.callbacks must be empty": {"config": {"callbacks": "x"}},
    "config has no field 'proposers'": {"config": {"proposers": ["openai:x"]}},
    "unknown field 'base_url'": {"context": {"base_url": "http://evil"}},
    "unknown field 'api_key'": {"config": {"configurable": {"api_key": "x"}}},
    "at most|less than|exceed": {"context": {"layers": 99}},
    "MOA_PRIVATE_URLS": {
        "input": {"messages": [{"content": [{"type": "image", "url": "http://127.0.0.1/a"}]}]}
    },
}


# LangGraph Server refuses what is no object itself.
CASES = [
    (server, says)
    for says in WRONG
    for server in SERVERS
    if server is not langgraph or not says.startswith(("config must", "context must"))
]


@pytest.mark.parametrize(("server", "says"), CASES)
async def test_a_wrong_run_is_refused_before_it_starts(server, says):
    refused = await said(server, **WRONG[says])
    assert str(refused).startswith("422: ")
    assert any(part in refused for part in says.split("|")), refused


@pytest.mark.parametrize("server", [aegra, command])
async def test_settings_are_given_in_one_place(server):
    both = {"context": {"layers": 3}, "config": {"configurable": {"aggregator": "openai:x"}}}
    assert "not in both" in str(await said(server, **both))
    both["config"] = {"configurable": {"thread_id": "1", "langgraph_x": "2"}}
    assert await said(server, **both) is None


@pytest.mark.parametrize("server", SERVERS)
async def test_a_run_of_a_preset_is_refused_if_it_asks_for_another_mixture(server):
    for preset in ("together", assistant_of("together")):
        for given in ({"context": OWN}, {"config": {"configurable": OWN}}):
            refused = str(await said(server, assistant_id=preset, **given))
            assert "together is a preset, which has its own aggregator and proposers" in refused
        assert await said(server, assistant_id=preset, context={"layers": 2}) is None
    assert await said(server, assistant_id=str(NAMESPACE_DNS), context=OWN) is None


async def test_an_assistant_of_a_preset_is_no_other_mixture():
    for handler in (create_assistants, own_assistants):
        with pytest.raises(Auth.exceptions.HTTPException, match="together is a preset"):
            await handler(USER, {"graph_id": "together", "context": OWN})


async def test_the_answer_to_an_interrupt_is_checked_as_an_input_is():
    value = {"id": 1, "method": "input.respond", "thread_id": "1"}
    many = {"messages": MESSAGES["messages"] * 501}
    for params in ({"response": many}, {"responses": [{"response": many}]}, {"update": many}):
        with pytest.raises(Auth.exceptions.HTTPException, match="501 messages") as error:
            await own_runs(USER, {**value, "params": params})
        assert error.value.status_code == 413


async def test_the_answer_to_an_interrupt_sends_no_node_an_input():
    params = {"goto": [{"node": "aggregator", "input": {}}]}
    value = {"id": 1, "method": "input.respond", "thread_id": "1", "params": params}
    with pytest.raises(Auth.exceptions.HTTPException, match="cannot send a node an input") as error:
        await own_runs(USER, value)
    assert error.value.status_code == 422
