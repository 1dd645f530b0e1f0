"""Two servers over one queue, of which one is killed and one is stopped, by `moa cluster`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import httpx2
import openai
import pytest
from langgraph_sdk import get_client
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.fake_server import eventually
from tests.integration.cancelling import cancelled_elsewhere
from tests.integration.cluster_runs import ALICE, WORDS, Runs, Streams, asked, is_gone
from tests.integration.langgraph_server import REPOSITORY

pytestmark = pytest.mark.services

BOB = "bob-0123456789abcdef"
QUICK = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
SOON = {  # Aegra finds out that a process is gone, and stops, within seconds
    "LEASE_DURATION_SECONDS": "6",
    "HEARTBEAT_INTERVAL_SECONDS": "2",
    "REAPER_INTERVAL_SECONDS": "1",
    "MOA_DRAIN_SECONDS": "2",
    "WORKER_DRAIN_TIMEOUT": "1",
}


def moa(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("moa")), "cluster", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | environment, text=True, check=False,
        capture_output=True, timeout=600,
    )  # fmt: skip


def free_ports() -> int:
    """Two ports that follow each other."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="module")
def folder(tmp_path_factory, aegra):
    """A folder that has the environment already, because installing takes long."""
    folder = tmp_path_factory.mktemp("cluster") / "state"
    folder.mkdir(mode=0o700)
    (folder / "environment").symlink_to(aegra.parents[1])
    return folder


@pytest.fixture(scope="module")
def up(_server, folder):
    """`up()`: start the servers that are not running, with the fake server's models."""
    port = str(free_ports())
    settings = {
        "OPENAI_BASE_URL": _server.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "MOA_API_KEYS": f"alice={ALICE},bob={BOB}",
        "MOA_ALLOWED_MODELS": "openai:*",
        "MOA_RUNS_PER_MINUTE": "1000",
        "MOA_MCP": "1",
    }
    return lambda: moa("up", "--folder", str(folder), "--port", port, **settings, **SOON)


@pytest.fixture(scope="module")
def urls(up, folder):
    """The addresses of two servers."""
    up = up()
    logs = [file.read_text()[-3000:] for file in folder.glob("server-*.log")]
    assert up.returncode == 0, [up.stderr, *logs]
    yield up.stdout.split()
    down = moa("down", "--folder", str(folder), "--remove")
    assert down.returncode == 0, down.stderr
    assert not folder.exists()
    for url in up.stdout.split():
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")


@pytest.fixture
def database(urls, folder) -> str:
    state = json.loads((folder / "cluster.json").read_text())
    return f"postgresql://moa:{state['password']}@127.0.0.1:{state['postgres_port']}/moa"


async def test_openais_client_and_keys(urls, server):
    async with httpx.AsyncClient() as nobody:
        for url in urls:
            assert (await nobody.post(f"{url}/assistants/search", json={})).status_code == 401
            assert (await nobody.get(f"{url}/v1/models")).status_code == 401
    async with get_client(url=urls[0], api_key=ALICE) as alice:
        await alice.assistants.create("mixture", name="alice's", context=QUICK)
        thread = (await alice.threads.create())["thread_id"]
    messages = [{"role": "user", "content": "hi there"}]
    for url in urls:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=ALICE) as client:
            assert "alice's" in {model.id async for model in client.models.list()}
            stream = await client.chat.completions.create(
                model="alice's", messages=messages, stream=True
            )
            said = [chunk.choices[0].delta.content async for chunk in stream]
            assert "".join(filter(None, said)) == "agg: hi there"
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=BOB) as client:
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="alice's", messages=messages)
        async with get_client(url=url, api_key=BOB) as bob:
            with pytest.raises(httpx.HTTPStatusError, match=r"404|not found"):
                await bob.threads.get_state(thread)
            with pytest.raises(httpx.HTTPStatusError) as error:
                await bob.runs.create(
                    (await bob.threads.create())["thread_id"],
                    "mixture",
                    input={"messages": messages},
                    context={"base_url": "http://evil"},
                )
            assert "unknown field 'base_url'" in error.value.response.text


async def test_an_mcp_client_may_use_any_of_the_servers(urls, server):
    async with get_client(url=urls[0], api_key=ALICE) as alice:
        await alice.assistants.create("mixture", name="panel", context=QUICK)
        hung = {**QUICK, "proposers": ["openai:a?hang"]}
        await alice.assistants.create("mixture", name="hung", context=hung)
    steps = []

    async def progress(done, total, message):
        steps.append((done, total))

    key = {"Authorization": f"Bearer {ALICE}"}
    for url in urls:
        async with (
            httpx2.AsyncClient(headers=key, timeout=60) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            arguments = {"question": "hi there", "mixture": "panel"}
            result = await client.call_tool("consult", arguments, progress_callback=progress)
            assert result.structured_content["answer"] == "agg: hi there"
    assert steps == [(1, 3), (2, 3), (3, 3)] * 2
    # A session that one server has begun, and a call that another one cancels.
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(headers={**key, **accept}, timeout=60) as http:

        async def post(url, method, **message):
            body = {"jsonrpc": "2.0", "method": method, **message}
            return await http.post(f"{url}/mcp", json=body)

        client_info = {"name": "a client", "version": "1"}
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client_info}
        begun = await post(urls[0], "initialize", id=1, params=hello)
        http.headers["Mcp-Session-Id"] = begun.headers["Mcp-Session-Id"]
        arguments = {"question": "hi", "mixture": "hung"}
        params = {"name": "consult", "arguments": arguments}
        call = asyncio.create_task(post(urls[0], "tools/call", id=2, params=params))
        await eventually(lambda: server.of("a")[2:])
        cancelled = {"requestId": 2}
        assert (await post(urls[1], "notifications/cancelled", params=cancelled)).is_success
        await eventually(lambda: server.of("a")[2].disconnected)
        assert '"isError":true' in (await call).text


async def refused(call, status: int = 422) -> str:
    """What the server says when it refuses a call."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        await call
    assert error.value.response.status_code == status, error.value.response.text
    return error.value.response.text


THREE = {"layers": 3}
OTHER = {"proposers": ["openai:x"]}
SHAPES = {  # what a run asks for, and the models that are called
    "nothing": ({}, ["a", "agg", "b"]),
    "proposers": ({"context": OTHER}, ["agg", "x"]),
    "layers": ({"context": THREE}, ["a", "a", "agg", "b", "b"]),
    "an aggregator": ({"context": {"aggregator": "openai:y"}}, ["a", "b", "y"]),
    "all": ({"context": {**OTHER, **THREE, "aggregator": "openai:y"}}, ["x", "x", "y"]),
    "configured proposers": ({"config": {"configurable": OTHER}}, ["agg", "x"]),
    "configured layers": ({"config": {"configurable": THREE}}, ["a", "a", "agg", "b", "b"]),
    "a setting": ({"context": {"aggregator_max_tokens": 7}}, ["a", "agg", "b"]),
    "tags": ({"config": {"tags": ["x"]}}, ["a", "agg", "b"]),
}


async def test_a_run_overrides_the_shape_of_its_assistant(urls, server):
    async with get_client(url=urls[0], api_key=ALICE) as client:
        own = [
            (await client.assistants.create("mixture", **made))["assistant_id"]
            for made in (
                {"context": QUICK},
                {"context": QUICK},
                {"config": {"configurable": QUICK}},
            )
        ]
        assert len(set(own)) == 3, "several assistants of one context"
        await client.assistants.update(own[0], config={"configurable": QUICK})
        again = {"assistant_id": own[0], "if_exists": "do_nothing", "context": QUICK}
        assert (await client.assistants.create("mixture", **again))["assistant_id"] == own[0]

        async def stateless(assistant, question, **run):
            return await client.runs.wait(None, assistant, input=question, **run)

        async def background(assistant, question, **run):
            thread = (await client.threads.create())["thread_id"]
            # Another shape in the same thread does not matter.
            other = {"input": asked("before"), "context": {**OTHER, **THREE}}
            parts = [part async for part in client.runs.stream(thread, assistant, **other)]
            assert parts[-1].data == {"status": "success"}
            made = await client.runs.create(thread, assistant, input=question, **run)
            async for _ in client.runs.join_stream(thread, made["run_id"]):
                pass
            return (await client.threads.get_state(thread))["values"]

        async def streamed(assistant, question, **run):
            last = None
            async for part in client.runs.stream(None, assistant, input=question, **run):
                last = part.data if part.event == "values" else last
            return last

        async def called(case, run, assistant) -> list[str]:
            run_of, _ = SHAPES[case]
            question = f"{case} {run.__name__} {assistant}"
            values = await run(assistant, asked(question), **run_of)
            last = values["messages"][-1]["content"]
            assert last in (f"agg: {question}", f"y: {question}"), last
            calls = [call for call in server.calls if question in str(call.messages[-1])]
            if case == "a setting":
                (agg,) = (call for call in calls if call.label == "agg")
                assert agg.body["max_completion_tokens"] == 7
            return sorted(call.label for call in calls)

        cases = [
            (case, run, own[number % 3])
            for number, case in enumerate(SHAPES)
            for run in (stateless, background, streamed)
        ]
        for (case, *_), labels in zip(
            cases, await asyncio.gather(*(called(*one) for one in cases)), strict=True
        ):
            assert labels == SHAPES[case][1], case


MALFORMED = {
    "config.recursion_limit": {"config": {"recursion_limit": 0}},
    "config.tags": {"config": {"tags": "x"}},
    "config.metadata": {"config": {"metadata": [1]}},
    "config.max_concurrency": {"config": {"max_concurrency": "x"}},
    "config.callbacks": {"config": {"callbacks": "x"}},
    "configurable must be": {"config": {"configurable": "x"}},
    "valid dictionary": {"config": "x"},
    "field of the run's context": {"config": OTHER},
    "unknown field 'base_url'": {"context": {"base_url": "http://evil"}},
    "less than or equal": {"config": {"configurable": {"layers": 99}}},
    "not in both": {"context": OTHER, "config": {"configurable": THREE}},
}


async def test_what_cannot_be_run_is_refused_before_the_run(urls, server):
    async with get_client(url=urls[0], api_key=ALICE) as client:
        made = (await client.assistants.create("mixture", context=QUICK))["assistant_id"]
        thread = (await client.threads.create())["thread_id"]
        question = asked("hi")
        for says, run in MALFORMED.items():
            for place in (None, thread):
                assert says in await refused(client.runs.wait(place, made, input=question, **run))
        (own,) = await client.assistants.search(
            graph_id="together", metadata={"created_by": "system"}
        )
        for preset in ("together", own["assistant_id"]):
            said = await refused(client.runs.wait(None, preset, input=question, context=OTHER))
            assert "together is a preset" in said
        command = {"assistant_id": made, "input": question, "config": {"tags": "x"}}
        body = {"id": 1, "method": "run.start", "params": command}
        path = f"{urls[0]}/threads/{thread}/commands"
        async with httpx.AsyncClient(headers={"x-api-key": ALICE}) as http:
            response = await http.post(path, json=body)
            assert response.status_code == 422
            assert "config.tags" in response.text
    assert server.calls == []


FAILURES = {
    "refused the API key": {"proposers": ["openai:a?status=401"]},
    "budget of 1 tokens": {"token_budget": 1},
    "The aggregator": {"aggregator": "openai:agg?status=400"},
}


UNSTORABLE = [
    ("POST", "/threads", '{"metadata": {"a": NaN}}', 422),
    ("POST", "/threads", '{"metadata": {"a": "\\ud83d"}}', 422),
    ("POST", "/threads/search", '{"offset": 1' + "0" * 30 + "}", 422),
    ("POST", "/assistants/search", '{"name": "\\u0000"}', 422),
    ("PUT", "/store/items", '{"namespace": ["a"], "key": "k\\u0000", "value": {}}', 422),
    ("POST", "/runs/wait", '{"assistant_id": "mixture", "input": {"messages": "\\ud83d"}}', 422),
    ("POST", "/runs/wait", '{"assistant_id": "mixture", "after_seconds": 1}', 422),
    ("GET", "/threads/%00/state", "", 404),
    ("GET", "/store/items?key=%00", "", 404),
]


async def test_what_no_database_can_store_is_refused(urls, server):
    headers = {"x-api-key": ALICE, "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=urls[0], headers=headers) as client:
        for method, path, body, status in UNSTORABLE:
            response = await client.request(method, path, content=body)
            assert response.status_code == status, (method, path, body, response.text)
    assert not server.calls


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_run_says_why(urls, server, stream):
    async with get_client(url=urls[0], api_key=ALICE) as alice:
        for says, fails in FAILURES.items():
            await alice.assistants.create("mixture", name=f"{says} {stream}", context=QUICK | fails)

        async def ask(says: str) -> openai.APIStatusError:
            async with openai.AsyncOpenAI(base_url=f"{urls[0]}/v1", api_key=ALICE) as client:
                with pytest.raises(openai.InternalServerError, match=says) as error:
                    await client.chat.completions.create(
                        model=f"{says} {stream}", messages=asked("hi")["messages"], stream=stream
                    )
                return error.value

        errors = await asyncio.gather(*map(ask, FAILURES))
        codes = ["NotEnoughProposals", "NotEnoughProposals", "AggregationFailed"]
        assert [error.code for error in errors] == codes
        assert {error.response.headers["X-Should-Retry"] for error in errors} == {"false"}
        run = alice.runs.stream(
            None, "mixture", input=asked("hi"), context={**QUICK, **FAILURES["budget of 1 tokens"]}
        )
        (failure,) = [part.data async for part in run if part.event == "error"]
        assert failure["error"] == "NotEnoughProposals"
        assert "budget of 1 tokens" in failure["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_is_cancelled_elsewhere_is_an_error(urls, server, stream):
    server.answers["agg"] = "word " * 1000
    async with get_client(url=urls[0], api_key=BOB) as bob:
        context = {**QUICK, "aggregator": "openai:agg?tps=20"}
        await bob.assistants.create("mixture", name=f"slow {stream}", context=context)
        text, error = await cancelled_elsewhere(
            urls, BOB, f"slow {stream}", server, stream=stream, bulk=stream
        )
        assert len(text) < 5000
        assert "cancelled" in str(error)
        assert len(server.of("a")) == 1
        if not stream:
            assert error.status_code == 502
            assert error.response.headers["X-Should-Retry"] == "false"


async def test_processes_that_die_lose_no_run_and_pay_for_nothing_twice(
    urls, up, server, folder, database
):
    def processes() -> list[int]:
        servers = json.loads((folder / "cluster.json").read_text())["servers"]
        return [servers[url.rpartition(":")[2]][0] for url in urls]

    for name, words in WORDS.items():
        server.answers[name] = " ".join(["word"] * words)
    clients = [get_client(url=url, api_key=ALICE) for url in urls]
    wrong = {"proposers": ["openai:wrong"], "aggregator": "openai:wrong"}
    made = await clients[0].assistants.create("mixture", context=wrong)
    runs = Runs(made["assistant_id"], server, database)
    await runs.start(clients)

    stopped, killed = processes()
    await eventually(lambda: runs.in_the_middle(killed) >= 5, 30)
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    await asyncio.sleep(0.3)  # what was sent before may still be on its way
    at_the_kill = runs.stored()
    assert len(at_the_kill) >= 5
    assert (await asyncio.to_thread(up)).returncode == 0  # it starts what is missing

    streams = Streams(urls[0])
    await streams.open("long", clients[0])
    await runs.start(clients)
    await eventually(lambda: runs.in_the_middle(stopped) >= 3, 30)
    await streams.open("short", clients[0])
    os.kill(stopped, signal.SIGTERM)
    ends = await asyncio.gather(*streams.tasks)
    await eventually(lambda: is_gone(stopped), 30)
    at_the_stop = runs.stored()
    await runs.end(clients[1])
    sys.stdout.write(f"{time.monotonic() - began:.1f} s from the kill to the last answer\n")

    for name, text in ends:
        assert text is None or (name == "short" and text == server.answers[name])
    calls = runs.calls()
    for stored in (at_the_kill, at_the_stop):
        assert {one: calls[one] for one in stored} == stored, "a stored proposal was paid for again"
    assert max(calls[one] for one in calls if "question" in one[0]) <= 3
    assert server.of("wrong") == []
    for client in clients:
        await client.aclose()
