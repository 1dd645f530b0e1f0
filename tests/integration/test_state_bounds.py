"""The bounds hold on every way into the state of a thread."""

from __future__ import annotations

import pytest

from tests.integration.keyed import INPUT, MIXTURE, RUNS_PER_MINUTE, client_of, http_of

MANY = {"messages": INPUT["messages"] * 51}
LONG = {"messages": [{"role": "user", "content": "word " * 100_000}]}
IMAGE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
PRIVATE = {"messages": [{"role": "user", "content": [IMAGE]}]}
TOO_MUCH = {
    "51 messages": (413, MANY),
    "MOA_MAX_TOKENS": (422, LONG),
    "MOA_PRIVATE_URLS": (422, PRIVATE),
}


def steps(**update):
    updates = [{"as_node": "__start__", **update}]
    return {"metadata": {"graph_id": "mixture"}, "supersteps": [{"updates": updates}]}


def command(method, **params):
    return {"id": 1, "method": method, "params": {"assistant_id": "mixture", **params}}


WAYS = {
    "input": ("/threads/{}/runs/wait", lambda x: {"input": x}),
    "input of a stateless run": ("/runs/wait", lambda x: {"input": x}),
    "batch": ("/runs/batch", lambda x: [{"assistant_id": "mixture", "input": x}]),
    "command.update": ("/threads/{}/runs/wait", lambda x: {"command": {"update": x}}),
    "pairs": (
        "/threads/{}/runs/wait",
        lambda x: {"command": {"update": [list(pair) for pair in x.items()]}},
    ),
    "command.resume": ("/threads/{}/runs/wait", lambda x: {"command": {"resume": x}}),
    "state": ("/threads/{}/state", lambda x: {"values": x}),
    "state as a node": ("/threads/{}/state", lambda x: {"values": [x], "as_node": "__start__"}),
    "supersteps": ("/threads", lambda x: steps(values=x)),
    "supersteps' command": ("/threads", lambda x: steps(command={"update": x})),
    "protocol": ("/threads/{}/commands", lambda x: command("run.start", input=x)),
}
SEND = [{"node": "layer_1_a", "input": INPUT}]
PLACE = {"checkpoint": {"proposers": ["openai:a"] * 3}}
WRONG = {
    "send": ("/threads/{}/runs/wait", {"command": {"goto": SEND}}, "cannot send a node an input"),
    "one send": ("/threads/{}/runs/wait", {"command": {"goto": SEND[0]}}, "not {'node'"),
    "send in a stateless run": ("/runs/wait", {"command": {"goto": SEND}}, "command.goto must be"),
    "send in supersteps": ("/threads", steps(command={"goto": SEND}), "command.goto must be"),
    "send in a batch": (
        "/runs/batch",
        [{"assistant_id": "mixture", "command": {"goto": SEND}}],
        "command.goto must be",
    ),
    "graph of a state": (
        "/threads/{}/state",
        {"values": None, **PLACE},
        "checkpoint has an unknown field 'proposers'",
    ),
    "graph of a history": ("/threads/{}/history", PLACE, "unknown field 'proposers'"),
    "graph of a run": (
        "/threads/{}/runs/wait",
        {"input": INPUT, **PLACE},
        "unknown field 'proposers'",
    ),
    "number as a checkpoint": (
        "/runs/wait",
        {"input": INPUT, "checkpoint": 1},
        "checkpoint must be an object, not 1",
    ),
    "number as a checkpoint's id": (
        "/threads/{}/state",
        {"values": None, "checkpoint_id": [1]},
        "checkpoint_id must be a string, not [1]",
    ),
    "name as a tracer": (
        "/runs/wait",
        {"input": INPUT, "langsmith_tracer": "mine"},
        "langsmith_tracer must be an object, not 'mine'",
    ),
    **{
        f"a number as a proposal, {way}": (path, body, "proposals.0 must be an object, not 5.")
        for way, path, body in (
            ("in an input", "/runs/wait", {"input": {**INPUT, "proposals": [5]}}),
            ("in a command", "/threads/{}/runs/wait", {"command": {"update": {"proposals": [5]}}}),
            ("in a state", "/threads/{}/state", {"values": {"proposals": [5]}}),
            ("in a new thread", "/threads", steps(values={"proposals": [5]})),
        )
    },
    "a negative limit": (
        "/store/items/search",
        {"namespace_prefix": [], "limit": -1},
        "limit must",
    ),
    "no prefix": ("/store/items/search", {}, "namespace_prefix must be a list of strings"),
    "no list": ("/store/items/search", {"namespace_prefix": "a"}, "namespace_prefix must be"),
    "a large offset": ("/threads/search", {"offset": 2**40}, "offset must be an integer"),
    "no limit": ("/store/namespaces", {"limit": "x"}, "limit must be an integer"),
    "a delay": ("/threads/{}/runs", {"input": INPUT, "after_seconds": 10**12}, "after_seconds"),
    "graph of a checkpoint": ("/threads/{}/state/checkpoint", PLACE, "unknown field 'proposers'"),
    "list": ("/runs/wait", {"input": INPUT["messages"]}, "input must be an object"),
    "string": ("/runs/wait", {"input": "hi"}, "input must be an object"),
    "number": ("/runs/wait", {"input": 3}, "input must be an object"),
    "pairs as input": ("/runs/wait", {"input": [["messages", []]]}, "input must be an object"),
    "header": (
        "/runs/wait",
        {"input": INPUT, "config": {"configurable": {"x-name": "y" * 400_001}}},
        "MOA_MAX_TOKENS",
    ),
    "role": (
        "/runs/wait",
        {
            "input": INPUT,
            "context": {**MIXTURE, "proposers": [{"model": "openai:a", "prompt": "y" * 400_001}]},
        },
        "MOA_MAX_TOKENS",
    ),
}


async def begun(client):
    """An assistant, and a thread with one turn."""
    assistant = (await client.assistants.create("mixture", context=MIXTURE))["assistant_id"]
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, assistant, input=INPUT)
    return assistant, thread


@pytest.fixture(scope="module")
async def thread(guarded):
    """A thread of the user `states`."""
    async with client_of(guarded.url, "states") as states:
        _, thread = await begun(states)
    return thread


async def posted(guarded, path, body, user="states"):
    async with http_of(guarded.url, user) as client:
        if isinstance(body, dict) and "/runs" in path:
            body = {"assistant_id": "mixture", **body}
        return await client.post(path, json=body)


@pytest.mark.parametrize("says", TOO_MUCH)
@pytest.mark.parametrize("way", WAYS)
async def test_too_much_is_refused_on_every_way(guarded, thread, server, way, says):
    (status, given), (path, body) = TOO_MUCH[says], WAYS[way]
    response = await posted(guarded, path.format(thread), body(given))
    assert says in response.text
    if way == "protocol":  # its errors have a status of their own
        assert response.json()["type"] == "error"
    else:
        assert response.status_code == status
    assert not server.calls


@pytest.mark.parametrize("what", WRONG)
async def test_what_no_client_needs_is_refused(guarded, thread, server, what):
    path, body, says = WRONG[what]
    response = await posted(guarded, path.format(thread), body)
    assert response.status_code == 422, response.text
    assert says in response.json()["detail"]
    assert not server.calls


async def test_traces_are_the_servers(guarded, thread, server):
    for path in ("/runs/wait", "/threads/{}/runs"):
        run = {"input": INPUT, "context": MIXTURE, "langsmith_tracer": {"project_name": "mine"}}
        response = await posted(guarded, path.format(thread), run)
        assert response.status_code == 403
        assert "langsmith_tracer" in response.json()["detail"]
    assert not server.calls


async def test_a_thread_can_still_be_forked_edited_and_copied(guarded):
    """As LangGraph Studio and the Agent Chat UI do."""
    async with client_of(guarded.url, "forks") as forks:
        assistant, thread = await begun(forks)
        first = (await forks.threads.get_history(thread, limit=10))[-1]["checkpoint"]
        asked, _ = (await forks.threads.get_state(thread))["values"]["messages"]
        edited = {"messages": [{**asked, "content": "edited"}]}
        place = await forks.threads.update_state(
            thread, edited, as_node="__start__", checkpoint=first
        )
        run = {"assistant_id": assistant, "input": None}
        state = await forks.runs.wait(thread, checkpoint=place["checkpoint"], **run)
        assert state["messages"][-1]["content"] == "agg: edited"
        copied = (await forks.threads.copy(thread))["thread_id"]
        mine = {"messages": [{**state["messages"][-1], "content": "mine"}]}
        again = {"update": mine, "goto": "__end__"}
        state = await forks.runs.wait(copied, assistant, command=again)
        assert [m["content"] for m in state["messages"]] == ["edited", "mine"]
        updates = [{"values": INPUT, "as_node": "__start__"}]
        made = await forks.threads.create(graph_id="mixture", supersteps=[{"updates": updates}])
        state = await forks.threads.get_state(made["thread_id"])
        assert [m["content"] for m in state["values"]["messages"]] == ["hi"]


async def test_a_conversation_that_grew_part_by_part_is_not_run(guarded, server):
    half = {"messages": INPUT["messages"] * 26}
    async with client_of(guarded.url, "parts") as parts:
        assistant, thread = await begun(parts)
        server.calls.clear()
        for _ in range(2):
            await parts.threads.update_state(thread, half, as_node="__start__")
        state = await parts.runs.wait(thread, assistant, input=None, raise_error=False)
    said = state["__error__"]["message"]
    assert (
        "54 messages and parts of messages; this server takes at most 50 (MOA_MAX_MESSAGES)" in said
    )
    assert not server.calls


async def test_updates_of_the_state_count_towards_the_rate(guarded):
    async with http_of(guarded.url, "writer") as writer:
        thread = (await writer.post("/threads", json={"metadata": {"graph_id": "mixture"}})).json()
        update = {"values": INPUT, "as_node": "__start__"}
        many = {**steps(), "supersteps": [{"updates": [update]}] * (RUNS_PER_MINUTE - 1)}
        assert (await writer.post("/threads", json=many)).status_code == 200
        path = f"/threads/{thread['thread_id']}"
        assert (await writer.post(f"{path}/state", json=update)).status_code == 200
        for refused in (
            await writer.post(f"{path}/state", json=update),
            await writer.post(f"{path}/copy"),
            await writer.post("/threads", json=steps(values=INPUT)),
        ):
            assert refused.status_code == 429
            assert "MOA_RUNS_PER_MINUTE" in refused.text
            assert int(refused.headers["Retry-After"]) >= 1
