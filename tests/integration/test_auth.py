"""A server with keys, driven by its clients and by those who have none."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress

import httpx
import httpx2
import openai
import pytest
from langgraph_sdk import get_client
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.fake_server import eventually
from tests.integration.keyed import INPUT, KEYS, MIXTURE, RUNS_PER_MINUTE
from tests.integration.langgraph_server import langgraph_dev

ALICE, BOB, CAROL, DAVE, ME = (
    KEYS[name] for name in ("alice", "bob", "carol", "dave", "me@example.com")
)


@pytest.fixture
async def alice(guarded):
    async with get_client(url=guarded.url, api_key=ALICE) as client:
        yield client


@pytest.fixture
async def bob(guarded):
    async with get_client(url=guarded.url, headers={"Authorization": f"Bearer {BOB}"}) as client:
        yield client


async def refused(status: int, call) -> str:
    """What the server says when it refuses the call with that status."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        await call
    response = error.value.response
    assert response.status_code == status, response.text
    return response.text


ROUTES = [
    ("POST", "/assistants/search", {}),
    ("POST", "/assistants", {"graph_id": "mixture"}),
    ("GET", "/assistants/mixture/graph", None),
    ("POST", "/threads", {}),
    ("POST", "/threads/search", {}),
    ("GET", "/threads/00000000-0000-0000-0000-000000000000", None),
    ("POST", "/runs/wait", {"assistant_id": "mixture", "input": INPUT}),
    ("POST", "/runs/stream", {"assistant_id": "mixture", "input": INPUT}),
    ("POST", "/runs/batch", [{"assistant_id": "mixture", "input": INPUT}]),
    ("POST", "/runs/crons/search", {}),
    ("PUT", "/store/items", {"namespace": ["a"], "key": "b", "value": {}}),
    ("POST", "/store/items/search", {"namespace_prefix": []}),
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", {"model": "together", "messages": INPUT["messages"]}),
    ("POST", "/moa/markdown", {}),
    ("GET", "/moa/prices?model=a", None),
    ("GET", "/moa/offer", None),
    ("POST", "/moa/export", {"context": MIXTURE}),
    ("POST", "/moa/votes", {}),
    ("POST", "/internal/truncate", {}),
    ("POST", "/deploy", {}),
    ("GET", "/metrics", None),
    ("POST", "/mcp", {}),
    ("GET", "/mcp/", None),
    ("POST", "/a2a/mixture", {}),
    ("GET", "/nothing", None),
    ("GET", "/moa/../assistants/search", None),
]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "wrong-0123456789abcdef"},
        {"Authorization": "Bearer wrong-0123456789abcdef"},
        {"x-auth-scheme": "langsmith"},
    ],
    ids=["no key", "a wrong key", "a wrong bearer", "as Studio"],
)
def test_without_a_key_nothing_is_answered(guarded, server, headers):
    with httpx.Client(base_url=guarded.url, headers=headers) as client:
        for method, path, body in ROUTES:
            answer = client.request(method, path, json=body)
            assert answer.status_code == 401, f"{method} {path}: {answer.text}"
            assert "API key" in answer.text
        assert client.get("/moa").status_code == 200  # the page, which asks for a key
        assert client.get("/ok").status_code == 200
    assert server.calls == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/a2a/mixture"),
        ("POST", "/internal/truncate"),
        ("GET", "/internal/debug/thread/00000000-0000-0000-0000-000000000000"),
        ("GET", "/deploy"),
        ("GET", "/metrics"),
    ],
)
def test_what_knows_no_owner_is_not_there(guarded, method, path):
    """LangGraph Server has these for itself, and asks `auth.py` about none of them."""
    answer = httpx.request(method, guarded.url + path, headers={"x-api-key": ALICE})
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Not found."}


async def test_another_users_thread_is_not_there(alice, bob, server):
    mine = (await alice.threads.create())["thread_id"]
    assistant = (await alice.assistants.create("mixture", context=MIXTURE))["assistant_id"]
    await alice.runs.wait(mine, assistant, input=INPUT)
    (run,) = await alice.runs.list(mine)
    server.calls.clear()
    vote = {"thread_id": mine, "run_id": run["run_id"], "layer": 1, "proposer": "a"}
    assert (await bob.http.client.post("/moa/votes", json=vote)).status_code == 404
    kept = await alice.http.client.post("/moa/votes", json=vote)
    assert kept.json() == {"kept": "on the server"}
    assert (await alice.http.client.post("/moa/votes", json=vote)).status_code == 409
    vote["proposer"] = "nobody"
    assert (await alice.http.client.post("/moa/votes", json=vote)).status_code == 422
    for call in (
        lambda: bob.threads.get(mine),
        lambda: bob.threads.get_state(mine),
        lambda: bob.threads.get_history(mine),
        lambda: bob.threads.update(mine, metadata={"a": 1}),
        lambda: bob.threads.update_state(mine, INPUT),
        lambda: bob.runs.wait(mine, "mixture", input=INPUT, context=MIXTURE),
        lambda: bob.runs.get(mine, run["run_id"]),
        lambda: bob.runs.join(mine, run["run_id"]),
        lambda: bob.runs.cancel(mine, run["run_id"]),
        lambda: bob.runs.delete(mine, run["run_id"]),
        lambda: bob.threads.delete(mine),
        lambda: bob.runs.wait(None, assistant, input=INPUT),
        lambda: bob.assistants.get(assistant),
        lambda: bob.assistants.get_graph(assistant),
        lambda: bob.assistants.update(assistant, name="bob's"),
        lambda: bob.assistants.delete(assistant),
    ):
        await refused(404, call())
    with suppress(httpx.HTTPStatusError):
        assert await bob.runs.list(mine) == []
    with pytest.raises(httpx.HTTPStatusError):
        await bob.threads.copy(mine)
    assert mine not in {t["thread_id"] for t in await bob.threads.search(limit=100)}
    assert assistant not in {a["assistant_id"] for a in await bob.assistants.search(limit=100)}
    assert server.calls == []
    assert len(await alice.threads.get_history(mine)) > 1


async def test_the_servers_own_assistants_are_for_all_and_nobodys(alice, bob):
    for client in (alice, bob):
        names = {a["name"] for a in await client.assistants.search(limit=100)}
        assert {"mixture", "together", "local"} <= names
    (together,) = await bob.assistants.search(graph_id="together")
    for call in (
        lambda: bob.assistants.update(together["assistant_id"], name="bob's"),
        lambda: bob.assistants.delete(together["assistant_id"]),
    ):
        await refused(404, call())
    # Nobody makes one for all.
    made = await bob.assistants.create(
        "mixture", name="forged", context=MIXTURE, metadata={"created_by": "system", "owner": "x"}
    )
    found = {a["assistant_id"] for a in await alice.assistants.search(limit=100)}
    assert made["assistant_id"] not in found


async def test_the_store_is_each_users_own(alice, bob):
    await alice.store.put_item(("notes",), "one", {"text": "mine"})
    assert (await alice.store.get_item(("notes",), "one"))["value"] == {"text": "mine"}
    assert await bob.store.get_item(("notes",), "one") is None
    assert await bob.store.get_item(("alice", "notes"), "one") is None
    assert (await bob.store.search_items(()))["items"] == []
    assert {place[0] for place in (await bob.store.list_namespaces())["namespaces"]} <= {"bob"}


REFUSED = {
    "MOA_ALLOWED_MODELS": {"proposers": ["openai:other"]},
    "MOA_MAX_LAYERS|less than or equal to 3": {"layers": 4},
    "MOA_MAX_PROPOSERS": {"proposers": ["openai:a"] * 5},
    "MOA_MAX_SAMPLES": {"proposers": [{"model": "openai:a", "samples": 3}]},
    "MOA_MAX_TOKENS": {"token_budget": 100_001},
    "unknown field 'base_url'": {"base_url": "http://127.0.0.1:1/v1"},
    "unknown field 'api_key'": {"api_key": "sk-mine"},
    "no argument 'base_url'": {"proposers": [{"model": "openai:a", "base_url": "http://evil"}]},
    "each tool must be": {
        "aggregator_options": {"tools": [{"type": "mcp", "server_url": "http://evil"}]}
    },
    "no local model": {"aggregator": "local:/etc/weights.gguf"},
}


@pytest.mark.parametrize("says", REFUSED)
async def test_what_exceeds_a_bound_is_refused_and_says_which(bob, server, says):
    context = {**MIXTURE, **REFUSED[says]}
    assert re.search(says, await refused(422, bob.assistants.create("mixture", context=context)))
    assistant = (await bob.assistants.create("mixture", context=MIXTURE))["assistant_id"]
    thread = (await bob.threads.create())["thread_id"]
    for call in (
        lambda: bob.assistants.update(assistant, context=context),
        lambda: bob.runs.wait(None, "mixture", input=INPUT, context=context),
        lambda: bob.runs.create(thread, assistant, input=INPUT, context=context),
        lambda: bob.runs.wait(None, "mixture", input=INPUT, config={"configurable": REFUSED[says]}),
    ):
        assert re.search(says, await refused(422, call()))
    assert server.calls == []


async def test_an_input_that_is_too_long_is_refused(bob, server):
    long = {"messages": [{"role": "user", "content": "word " * 100_000}]}
    run = bob.runs.wait(None, "mixture", input=long, context=MIXTURE)
    assert "MOA_MAX_TOKENS" in await refused(422, run)
    assert server.calls == []


async def test_keys_have_no_schedules(bob):
    schedule = bob.crons.create("mixture", schedule="* * * * *", input=INPUT, context=MIXTURE)
    assert "MOA_RUNS_PER_MINUTE" in await refused(403, schedule)


async def test_a_preset_outside_the_allow_list_runs_nothing(guarded, bob, server):
    failed = await bob.runs.wait(None, "together", input=INPUT, raise_error=False)
    assert "MOA_ALLOWED_MODELS" in failed["__error__"]["message"]
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=BOB) as client:
        assert "together" not in {m.id async for m in client.models.list()}
        with pytest.raises(openai.BadRequestError, match="MOA_ALLOWED_MODELS"):
            await client.chat.completions.create(model="together", messages=INPUT["messages"])
    assert server.calls == []


async def test_openais_client_with_a_key(guarded, alice, server):
    await alice.assistants.create("mixture", name="alice's", context=MIXTURE)
    url = f"{guarded.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=ALICE) as client:
        answer = await client.chat.completions.create(model="alice's", messages=INPUT["messages"])
        assert answer.choices[0].message.content == "agg: hi"
    async with openai.AsyncOpenAI(base_url=url, api_key=BOB) as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="alice's", messages=INPUT["messages"])
    async with openai.AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="Invalid API key for this server"):
            await client.chat.completions.create(model="alice's", messages=INPUT["messages"])


@asynccontextmanager
async def mcp_client(guarded, key):
    async with (
        httpx2.AsyncClient(headers={"x-api-key": key}, timeout=30) as http,
        Client(streamable_http_client(f"{guarded.url}/mcp", http_client=http)) as client,
    ):
        yield client


async def consulted(client, mixture=None, question="hi"):
    """Whether the call is refused, and what it returns."""
    arguments = {"question": question, "mixture": mixture}
    result = await client.call_tool("consult", arguments)
    return result.is_error, result.content[0].text


async def test_mcp_clients_with_keys(guarded, alice, server):
    panel = "the panel of alice"
    await alice.assistants.create("mixture", name=panel, context=MIXTURE)
    async with mcp_client(guarded, ALICE) as hers, mcp_client(guarded, BOB) as his:
        (tool,) = (await his.list_tools()).tools
        assert "'mixture'" in str(tool.input_schema)
        assert panel not in str(tool.input_schema)
        answered, *refused = await asyncio.gather(
            consulted(hers, panel),
            consulted(his, panel),
            consulted(his, "mixture", "word " * 100_000),
            consulted(his, "together"),
            consulted(his),  # the graph `mixture`, with its own models
        )
    assert answered == (False, "agg: hi")
    assert all(is_error for is_error, _ in refused)
    unknown, long, *outside = [said for _, said in refused]
    assert unknown.startswith(f"Unknown mixture '{panel}'. Available: ")
    assert unknown.count(panel) == 1
    assert "MOA_MAX_TOKENS" in long
    assert all("MOA_ALLOWED_MODELS" in said for said in outside)
    assert sorted(server.labels()) == ["a", "agg", "b"]
    # Behind a proxy, with the name of the proxy.
    headers = {
        "Host": "moa.example.com",
        "Origin": "https://moa.example.com",
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {ALICE}",
    }
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    async with httpx.AsyncClient(headers=headers) as proxy:
        response = await proxy.post(f"{guarded.url}/mcp", json=listing)
    assert response.status_code == 200
    assert "consult" in response.text


async def test_a_key_may_start_so_many_runs_a_minute(guarded, server):
    async with get_client(url=guarded.url, api_key=CAROL) as carol:
        outcomes = await asyncio.gather(
            *(
                carol.runs.wait(None, "mixture", input=INPUT, context=MIXTURE)
                for _ in range(RUNS_PER_MINUTE + 3)
            ),
            return_exceptions=True,
        )
        errors = [o for o in outcomes if isinstance(o, httpx.HTTPStatusError)]
        assert [error.response.status_code for error in errors] == [429] * 3
        assert "MOA_RUNS_PER_MINUTE" in errors[0].response.text
        assert 1 <= int(errors[0].response.headers["Retry-After"]) <= 60
        assert len(server.of("agg")) == RUNS_PER_MINUTE
    url = f"{guarded.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=CAROL, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="MOA_RUNS_PER_MINUTE"):
            await client.chat.completions.create(model="mixture", messages=INPUT["messages"])
    async with mcp_client(guarded, CAROL) as client:
        refused, said = await consulted(client)
    assert refused
    assert re.search(r"\(MOA_RUNS_PER_MINUTE\)\. Try again in \d+ seconds\.", said)


def test_keys_are_not_in_the_log(guarded):
    for key in (ALICE, BOB, CAROL, "sk-test-0123456789"):
        assert key not in guarded.log


def test_without_keys_a_server_that_others_can_reach_answers_nobody(tmp_path):
    with (
        langgraph_dev(tmp_path, "--host", "0.0.0.0") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for method, path, body in ROUTES:
            answer = client.request(method, path, json=body)
            assert answer.status_code == 401, f"{method} {path}: {answer.text}"
            assert "set MOA_API_KEYS" in answer.text


# --- findings of an attack -------------------------------------------------------------------


async def posted(guarded, path, body, key=ME):
    async with httpx.AsyncClient(base_url=guarded.url, headers={"x-api-key": key}) as client:
        return await client.post(path, json=body, timeout=30)


async def test_a_name_may_be_an_address(guarded):
    async with get_client(url=guarded.url, api_key=ME) as me:
        await me.store.put_item(["notes"], "a", {"x": 1})
        assert (await me.store.get_item(["notes"], "a"))["value"] == {"x": 1}
        found = await me.store.search_items(["notes"])
        assert [item["key"] for item in found["items"]] == ["a"]
        state = await me.runs.wait(None, (await made(me))["assistant_id"], input=INPUT)
        assert state["messages"][-1]["content"] == "agg: hi"


async def made(client, **context):
    return await client.assistants.create("mixture", context={**MIXTURE, **context})


@pytest.mark.parametrize("key", ["threads", "stateless"])
async def test_many_messages_are_refused_at_once(guarded, key, server):
    async with get_client(url=guarded.url, api_key=ME) as me:
        assistant = await made(me, token_budget=9999)
        many = {"messages": INPUT["messages"] * 51}
        thread = (await me.threads.create())["thread_id"] if key == "threads" else None
        said = await refused(413, me.runs.wait(thread, assistant["assistant_id"], input=many))
        assert "51 messages" in said
        command = {"update": many}
        given = me.runs.wait(thread, assistant["assistant_id"], command=command)
        assert "51 messages" in await refused(413, given)
    body = {"model": assistant["assistant_id"], "messages": many["messages"]}
    response = await posted(guarded, "/v1/chat/completions", body)
    assert response.status_code == 413
    assert "at most 50 (MOA_MAX_MESSAGES)" in response.json()["error"]["message"]
    assert not server.calls


@pytest.mark.parametrize(
    "config",
    [
        {"configurable": "x"},
        {"configurable": [1]},
        {"recursion_limit": 0},
        {"recursion_limit": "many"},
        {"tags": "x"},
        {"tags": [1]},
        {"metadata": [1]},
    ],
)
async def test_a_malformed_configuration_is_refused_before_the_run(guarded, config, server):
    response = await posted(
        guarded, "/runs/wait", {"assistant_id": "mixture", "input": INPUT, "config": config}
    )
    assert response.status_code == 422, response.text
    assert "500" not in response.text
    assert not server.calls


async def test_a_private_address_is_refused(guarded, server):
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    messages = [{"role": "user", "content": [image]}]
    async with get_client(url=guarded.url, api_key=ME) as me:
        assistant = (await made(me, token_budget=9998))["assistant_id"]
        call = me.runs.wait(None, assistant, input={"messages": messages})
        assert "MOA_PRIVATE_URLS" in await refused(422, call)
    body = {"model": assistant, "messages": messages}
    response = await posted(guarded, "/v1/chat/completions", body)
    assert response.status_code == 400
    assert "private network" in response.json()["error"]["message"]
    assert not server.calls


async def test_a_batch_is_started_whole_or_not_at_all(guarded, server):
    async with get_client(url=guarded.url, api_key=DAVE) as dave:
        assistant = (await made(dave))["assistant_id"]
    runs = [{"assistant_id": assistant, "input": INPUT}] * (RUNS_PER_MINUTE + 1)
    response = await posted(guarded, "/runs/batch", runs, DAVE)
    assert response.status_code == 429, response.text
    await asyncio.sleep(1)
    assert not server.calls
    bad = [*runs[:2], {"assistant_id": assistant, "input": {"messages": INPUT["messages"] * 51}}]
    response = await posted(guarded, "/runs/batch", bad, DAVE)
    assert response.status_code == 413
    await asyncio.sleep(1)
    assert not server.calls
    response = await posted(guarded, "/runs/batch", runs[:3], DAVE)
    assert response.status_code == 200
    await eventually(lambda: len(server.of("agg")) == 3)


BAD_RUNS = {
    "metadata": {"metadata": {"a": "x" * 50_000}},
    "metadata of the configuration": {"config": {"metadata": {"a": "x" * 50_000}}},
    "a preset with another mixture": {"assistant_id": "moa-lite"},
    "no such graph": {"assistant_id": "nothing"},
    "no such assistant": {"assistant_id": "9d3c6a3c-7a7b-4f8e-9a0e-7f5f8a2f3b11"},
    "tracer": {"langsmith_tracer": {"project_name": "x"}},
    "tracer of a setting": {
        "langsmith_tracer": {"project_name": "x"},
        "context": None,
        "config": {"configurable": {"__langsmith_project__": ""}},
    },
    "webhook": {"webhook": "https://example.org/x"},
    "two places": {"config": {"configurable": {"layers": 2}}},
    "resume": {"input": None, "command": {"resume": 1}},
    "mode": {"stream_mode": ["tools"]},
    "late": {"after_seconds": 10**18},
    "no number": {"after_seconds": "x"},
    "early": {"after_seconds": -1},
}


@pytest.mark.parametrize("bad", BAD_RUNS)
async def test_a_run_that_is_refused_starts_no_other_of_its_batch(guarded, server, bad):
    context = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
    good = {"assistant_id": "mixture", "input": INPUT, "context": context}
    changed = {
        name: value for name, value in {**good, **BAD_RUNS[bad]}.items() if value is not None
    }
    batch = [good, changed, good]
    async with get_client(url=guarded.url, api_key=DAVE) as dave:
        before = await dave.threads.count()
        response = await posted(guarded, "/runs/batch", batch, DAVE)
        assert 400 <= response.status_code < 500, response.text
        assert await dave.threads.search(status="busy") == []
        assert await dave.threads.count() == before  # a run has a thread as soon as it is queued
    assert not server.calls


def test_models_are_those_that_the_key_may_use(guarded):
    listed = httpx.get(f"{guarded.url}/v1/models", headers={"x-api-key": ME}).json()["data"]
    assert not {"together", "local", "moa"} & {model["id"] for model in listed}


def test_an_unknown_path_has_no_code_of_a_wrong_key(guarded):
    response = httpx.get(f"{guarded.url}/xx/v1/models", headers={"x-api-key": ME})
    assert response.status_code == 404
    assert "invalid_api_key" not in response.text
