"""LangGraph Server with the graphs of `langgraph.json`, driven by its own client."""

from __future__ import annotations

import asyncio
import importlib
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import httpx
import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client
from langgraph_sdk.errors import UnprocessableEntityError

from moa_graph.presets import PRESETS
from moa_graph.server.assistants import AssistantContext
from tests.fake_server import eventually
from tests.guides import SERVER, blocks
from tests.integration.langgraph_server import REPOSITORY, langgraph_dev

QUESTION = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def client(langgraph_server):
    async with get_client(url=langgraph_server.url) as client:
        yield client


async def assistant(client, proposers, aggregator="openai:agg", **context):
    context = {"proposers": proposers, "aggregator": aggregator, **context}
    created = await client.assistants.create("mixture", context=context, name=uuid.uuid4().hex)
    return created["assistant_id"]


async def context_fields(client, graph):
    (found,) = await client.assistants.search(graph_id=graph, metadata={"created_by": "system"})
    schemas = await client.assistants.get_schemas(found["assistant_id"])
    return schemas["context_schema"]["properties"], schemas


async def nodes(client, assistant_id):
    drawing = await client.assistants.get_graph(assistant_id)
    return [node["id"] for node in drawing["nodes"]][1:-1]


async def test_it_starts_without_a_key_and_says_what_is_missing(tmp_path, server):
    with langgraph_dev(tmp_path) as started:
        assert started.seconds < 30
        client = get_client(url=started.url)
        graphs = {a["graph_id"] for a in await client.assistants.search()}
        assert graphs == {"mixture", *PRESETS}
        for graph in graphs:
            assert "aggregator" in await nodes(client, graph)
        failed = await client.runs.wait(None, "together", input=QUESTION, raise_error=False)
        assert failed["__error__"]["error"] == "MoAError"
        assert "TOGETHER_API_KEY" in failed["__error__"]["message"]
    assert server.calls == []


async def test_schemas_describe_every_setting(client):
    properties, schemas = await context_fields(client, "together")
    for field in properties.values():
        assert field["title"]
        assert len(field["description"]) > 20
        assert "default" in field
        assert set(field["langgraph_nodes"]) <= set(await nodes(client, "together"))
    assert properties["aggregation_prompt"]["langgraph_type"] == "prompt"
    assert properties["aggregator_temperature"]["langgraph_nodes"] == ["aggregator"]
    assert set(properties["quorum"]["langgraph_nodes"]) < set(await nodes(client, "together"))
    assert properties["proposer_temperature"]["anyOf"][0] == {
        "type": "number",
        "minimum": 0,
        "maximum": 2,
    }
    assert properties["layers"]["anyOf"][0]["maximum"] == 2
    of_mixture, _ = await context_fields(client, "mixture")
    own = {"proposers", "aggregator", "layers", "references", "route", "progressive", "limits"}
    assert own | {*properties} == {*of_mixture}
    for name in own:
        assert of_mixture[name]["title"]
        assert len(of_mixture[name]["description"]) > 20
        assert of_mixture[name]["langgraph_nodes"]
    described = AssistantContext.model_json_schema()["$defs"]
    assert {"AggregatorOptions", "Layer", "Proposer", "References", "RunLimits"} < set(described)
    for definition in described.values():
        for field in definition["properties"].values():
            assert field["title"]
            assert field["description"]
    layer = described["Layer"]["properties"]
    assert layer["quorum"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert layer["timeout"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0}
    assert of_mixture["route"]["langgraph_nodes"] == ["first_pass"]
    assert set(schemas["output_schema"]["properties"]) == {"messages", "proposals"}


async def test_an_assistant_is_a_mixture_with_its_own_graph_and_models(client, server):
    one = await assistant(client, ["openai:a", "openai:b"], "openai:agg1")
    other = await assistant(
        client,
        [
            [{"model": "openai:c", "samples": 2}, {"model": "openai:d", "name": "critic"}],
            ["openai:e"],
        ],
        {"model": "openai:agg2", "temperature": 0.1},
    )
    assert await nodes(client, one) == ["layer_1_a", "layer_1_b", "aggregator"]
    assert await nodes(client, other) == [
        "layer_1_c_1", "layer_1_c_2", "layer_1_critic", "layer_2_e", "aggregator",
    ]  # fmt: skip
    states = await asyncio.gather(
        *(client.runs.wait(None, which, input=QUESTION) for which in (one, other))
    )
    assert [state["messages"][-1]["content"] for state in states] == ["agg1: hi", "agg2: hi"]
    assert sorted(call.label for call in server.calls) == [
        "a", "agg1", "agg2", "b", "c", "c", "d", "e",
    ]  # fmt: skip
    assert server.of("agg2")[0].body["temperature"] == 0.1


async def test_a_wrong_assistant_is_told_and_calls_no_model(client, server):
    wrong = {
        "params": [{"model": "openai:a", "params": {"base_url": "http://evil"}}],
        "no local model": ["local:/etc/weights.gguf"],
        "has no provider": ["nonsense"],
        "unknown provider": ["nonsense:a"],
    }
    for says, proposers in wrong.items():
        with pytest.raises(UnprocessableEntityError, match=says):
            await assistant(client, proposers)
        with pytest.raises(Exception, match=says):
            await client.runs.wait(
                None, "mixture", input=QUESTION, context={"proposers": proposers}
            )
    assert server.calls == []


async def test_context_tunes_a_run(client, server):
    which = await assistant(client, ["openai:a", "openai:b"], layers=3)
    context = {"proposer_temperature": 0.1, "aggregator_max_tokens": 7}
    await client.runs.wait(None, which, input=QUESTION, context=context)
    assert {call.body["temperature"] for call in server.of("a")} == {0.1}
    assert server.of("agg")[0].body["max_completion_tokens"] == 7


async def test_proposals_stream_as_they_arrive_and_the_answers_tokens_once(client):
    which = await assistant(client, ["openai:a", "openai:b?latency=0.6"])
    parts = [
        (part.event, part.data)
        async for part in client.runs.stream(
            None, which, input=QUESTION, stream_mode=["messages-tuple", "updates", "custom"]
        )
    ]
    tokens = [data[0]["content"] for event, data in parts if event == "messages"]
    assert "".join(tokens) == "agg: hi"
    updates = [next(iter(data)) for event, data in parts if event == "updates"]
    assert updates == ["layer_1_a", "layer_1_b?latency=0.6", "aggregator"]
    kinds = [data["type"] for event, data in parts if event == "custom"]
    assert kinds.count("proposer_started") == kinds.count("proposer_ended") == 2
    first = next(i for i, (event, _) in enumerate(parts) if event == "updates")
    told = [data["type"] for event, data in parts[first:] if event == "custom"]
    assert "proposer_ended" in told  # the second's, after the first proposal had come


async def test_proposers_stream_too_when_a_run_asks_for_it(client):
    which = await assistant(client, ["openai:a", "openai:b"])
    said: dict[str, str] = {}
    async for part in client.runs.stream(
        None,
        which,
        input=QUESTION,
        context={"stream_proposals": True},
        stream_mode="messages-tuple",
    ):
        if part.event == "messages":
            chunk, metadata = part.data
            who = metadata.get("moa_proposer", metadata["langgraph_node"])
            said[who] = said.get(who, "") + chunk["content"]
    assert said == {"a": "a: hi", "b": "b: hi", "aggregator": "agg: hi"}


async def test_a_thread_goes_on(client, server):
    which = await assistant(client, ["openai:a"])
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, which, input=QUESTION)
    more = {"messages": [{"role": "user", "content": "and more?"}]}
    state = await client.runs.wait(thread, which, input=more)
    assert [m["content"] for m in state["messages"]] == [
        "hi", "agg: hi", "and more?", "agg: and more?",
    ]  # fmt: skip
    assert [p["turn"] for p in state["proposals"]] == [2]
    assert [m["content"] for m in server.of("a")[1].messages] == ["hi", "agg: hi", "and more?"]


async def test_cancelling_a_run_closes_its_requests(client, server):
    which = await assistant(client, ["openai:a?hang", "openai:b?hang"])
    thread = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread, which, input=QUESTION)
    await eventually(lambda: server.of("a") and server.of("b"))
    await client.runs.cancel(thread, run["run_id"], wait=True)
    await eventually(lambda: all(call.disconnected for call in server.calls))
    assert [call.label for call in server.of("agg")] == []


async def test_a_fork_runs_only_the_aggregator_again(client, server):
    which = await assistant(client, ["openai:a", "openai:b"])
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, which, input=QUESTION)
    history = await client.threads.get_history(thread)
    (before,) = [state for state in history if state["next"] == ["aggregator"]]
    server.calls.clear()
    state = await client.runs.wait(
        thread,
        which,
        input=None,
        checkpoint=before["checkpoint"],
        context={"aggregation_prompt": "Combine, in verse:"},
    )
    assert [call.label for call in server.calls] == ["agg"]
    assert server.calls[0].system.startswith("Combine, in verse:")
    assert [p["proposer"] for p in state["proposals"]] == ["a", "b"]


async def test_a_remote_graph_is_a_node_of_a_local_one(client, langgraph_server, server):
    which = await assistant(client, ["openai:a", "openai:b"])
    parent = StateGraph(MessagesState)
    parent.add_node("advise", RemoteGraph(which, url=langgraph_server.url))
    parent.add_edge(START, "advise")
    state = await parent.compile().ainvoke({"messages": "hi"})
    assert state["messages"][-1].content == "agg: hi"
    assert {call.label for call in server.calls} == {"a", "b", "agg"}


def test_the_readmes_clients_work(langgraph_server, server, capsys):
    namespace: dict = {}
    guide = REPOSITORY / "notebooks" / "server.md"
    for block in (*blocks("python", guide), *blocks("python")):
        if SERVER in block:
            code = block.replace("together:", "openai:").replace(SERVER, langgraph_server.url)
            code = code.replace('model="together"', 'model="critics"')
            exec(compile(code, "guide", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "layer_2_critic openai/gpt-oss-120b: " in printed
    assert "aggregator deepseek-ai/DeepSeek-V4-Pro: " in printed
    assert "'critics'" in printed
    _, _, after = printed.partition("'critics'")
    answers = after.count("deepseek-ai/DeepSeek-V4-Pro: What is fun in SF?")
    assert answers == 4  # three protocols, and the README's own
    assert {call.body.get("temperature") for call in server.calls} == {1, 0.7}


def test_the_dockerfile_of_langgraphs_command_is_one(tmp_path):
    files = ("langgraph.json", "pyproject.toml", "README.md", "LICENSE")
    for name in files:
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "moa_graph", tmp_path / "moa_graph")
    command = [Path(sys.executable).with_name("langgraph"), "dockerfile", "Dockerfile"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "Dockerfile").read_text().splitlines()
    # As Docker reads it: a quote in a description would end the value.
    environment = dict(
        shlex.split(line.removeprefix("ENV "))[0].split("=", 1)
        for line in lines
        if line.startswith("ENV ")
    )
    said = {
        name: json.loads(environment[name])
        for name in ("LANGGRAPH_AUTH", "LANGGRAPH_HTTP", "LANGSERVE_GRAPHS")
    }
    assert set(said["LANGSERVE_GRAPHS"]) == {"mixture", *PRESETS}
    paths = [graph["path"] for graph in said["LANGSERVE_GRAPHS"].values()]
    for path in [*paths, said["LANGGRAPH_AUTH"]["path"], said["LANGGRAPH_HTTP"]["app"]]:
        file, _, name = path.removeprefix(f"/deps/{tmp_path.name}/").partition(":")
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        assert hasattr(module, name)
    assert said["LANGGRAPH_AUTH"]["disable_studio_auth"] is True
    # What the server needs is installed, and no shell takes a version for a redirection.
    (install,) = [line for line in lines if "constraints.txt anthropic" in line]
    words = install.partition("constraints.txt ")[2].split()
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [*extra["optional-dependencies"]["server"], *extra["optional-dependencies"]["mcp"]]
    names = {requirement.partition(">")[0] for requirement in needed}
    assert set(words) == names - {"moa-graph[server]"}


async def test_graphs_are_built_once_for_each_configuration():
    from moa_graph.server.assistants import mixture

    def config(*proposers, **more):
        return {"configurable": {"proposers": list(proposers), "thread_id": "1", **more}}

    one = await mixture(config("openai:a", "openai:b"))
    assert await mixture(config("openai:a", "openai:b", proposer_temperature=1)) is one
    assert await mixture(config("openai:b", "openai:a")) is not one
    assert await mixture(config("openai:a", "openai:b", layers=3)) is not one


@pytest.mark.parametrize(
    ("says", "run"),
    [
        ("501 messages", {"input": {"messages": QUESTION["messages"] * 501}}),
        ("command.goto must be", {"command": {"goto": {"node": "aggregator", "input": {}}}}),
        ("unknown field 'base_url'", {"input": QUESTION, "context": {"base_url": "http://evil"}}),
    ],
)
async def test_bounds_hold_for_users_of_this_machine_and_their_schedules(client, says, run):
    thread = (await client.threads.create())["thread_id"]
    schedule = {"schedule": "0 0 1 1 *", "assistant_id": "mixture", **run}
    for path, body in {
        "/runs/crons": schedule,
        f"/threads/{thread}/runs/crons": schedule,
        f"/threads/{thread}/runs/wait": {"assistant_id": "mixture", **run},
    }.items():
        with pytest.raises(httpx.HTTPStatusError) as error:
            await client.http.post(path, json=body)
        assert error.value.response.status_code in (413, 422)
        assert says in error.value.response.text


def test_nothing_has_blocked_the_servers_event_loop(langgraph_server):
    assert "Blocking call" not in langgraph_server.log
    assert "BlockingError" not in langgraph_server.log
