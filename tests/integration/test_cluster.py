"""Two servers over one queue, of which one is killed; started and stopped by `moa cluster`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import httpx2
import openai
import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph_sdk import get_client
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.fake_server import eventually
from tests.integration.langgraph_server import REPOSITORY

pytestmark = pytest.mark.services

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
RUNS = 40
LAYERS = [[("a", 0.4), ("b", 1.5), ("c", 2.5)], [("d", 0.4), ("e", 1.5), ("f", 2.5)]]
MIXTURE = {
    "proposers": [
        [{"model": f"openai:{name}?latency={seconds}", "name": name} for name, seconds in layer]
        for layer in LAYERS
    ],
    "aggregator": "openai:agg",
}
QUICK = {  # Aegra finds out that a process is gone within seconds
    "LEASE_DURATION_SECONDS": "6",
    "HEARTBEAT_INTERVAL_SECONDS": "2",
    "REAPER_INTERVAL_SECONDS": "2",
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
def urls(_server, folder):
    """The addresses of two servers with the fake server's models."""
    settings = {
        "OPENAI_BASE_URL": _server.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "MOA_API_KEYS": f"alice={ALICE},bob={BOB}",
        "MOA_ALLOWED_MODELS": "openai:*",
        "MOA_RUNS_PER_MINUTE": "1000",
        "MOA_MCP": "1",
    }
    up = moa("up", "--folder", str(folder), "--port", str(free_ports()), **settings, **QUICK)
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
        quick = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
        await alice.assistants.create("mixture", name="alice's", context=quick)
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
    quick = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
    async with get_client(url=urls[0], api_key=ALICE) as alice:
        await alice.assistants.create("mixture", name="panel", context=quick)
        hung = {**quick, "proposers": ["openai:a?hang"]}
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


async def test_a_killed_process_loses_no_run_and_pays_for_nothing_twice(
    urls, server, folder, database
):
    clients = [get_client(url=url, api_key=ALICE) for url in urls]
    made = await clients[0].assistants.create("mixture", context=MIXTURE)

    async def start(number: int) -> tuple[str, str]:
        client = clients[number % 2]
        thread = (await client.threads.create())["thread_id"]
        question = {"messages": [{"role": "user", "content": f"question {number}"}]}
        run = await client.runs.create(thread, made["assistant_id"], input=question)
        return thread, run["run_id"]

    started = await asyncio.gather(*(start(number) for number in range(RUNS)))

    def calls() -> Counter[tuple[str, str]]:
        return Counter((c.messages[-1]["content"], c.label) for c in server.calls)

    def in_the_middle() -> set[str]:
        """Questions with a layer of which some proposers have answered, and some have not."""
        middle = set()
        for layer in LAYERS:
            names = {name for name, _ in layer}
            asked = [c for c in server.calls if c.label in names]
            done = {c.messages[-1]["content"] for c in asked if c.ended}
            middle |= done & {c.messages[-1]["content"] for c in asked if not c.ended}
        return middle

    def by_process() -> Counter[int]:
        with psycopg.connect(database) as connection:
            rows = connection.execute(
                "SELECT claimed_by, thread_id FROM runs WHERE status = 'running'"
            )
            threads = {thread: number for number, (thread, _) in enumerate(started)}
            middle = in_the_middle()
            return Counter(
                int(claimed.split("-")[-3])
                for claimed, thread in rows
                if f"question {threads.get(thread)}" in middle
            )

    async with asyncio.timeout(30):
        while len(counts := by_process()) < 2 or counts.most_common(1)[0][1] < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    victim, _ = counts.most_common(1)[0]
    servers = json.loads((folder / "cluster.json").read_text())["servers"]
    (dead,) = [port for port, (pid, _) in servers.items() if pid == victim]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    await asyncio.sleep(0.3)  # what was sent before may still be on its way
    before = calls()
    stored = set()
    with PostgresSaver.from_conn_string(database) as saver:
        for number, (thread, _) in enumerate(started):
            checkpoint = saver.get_tuple({"configurable": {"thread_id": thread}})
            if checkpoint is None:
                continue
            known = list(checkpoint.checkpoint["channel_values"].get("proposals", ()))
            for _, channel, value in checkpoint.pending_writes or ():
                known += value if channel == "proposals" else []
            stored |= {(f"question {number}", p["proposer"]) for p in known}
    assert len(stored) >= 10

    (survivor,) = [client for client, url in zip(clients, urls, strict=True) if dead not in url]

    async def finished(thread: str, run: str) -> str:
        while True:
            status = (await survivor.runs.get(thread, run))["status"]
            if status not in ("pending", "running"):
                return status
            await asyncio.sleep(0.5)

    async with asyncio.timeout(90):
        statuses = await asyncio.gather(*(finished(*ids) for ids in started))
    sys.stdout.write(f"{time.monotonic() - killed:.1f} s from the kill to the last answer\n")
    assert Counter(statuses) == {"success": RUNS}
    for number, (thread, _) in enumerate(started):
        state = (await survivor.threads.get_state(thread))["values"]
        assert state["messages"][-1]["content"] == f"agg: question {number}"
        assert [p["proposer"] for p in state["proposals"]] == list("abcdef")
        assert {p["status"] for p in state["proposals"]} == {"ok"}
    twice = {call for call, count in calls().items() if count > 1}
    assert not twice & stored, "a stored proposal was paid for again"
    assert max(calls().values()) <= 2
    assert twice <= set(before), "a call was made twice by the process that goes on"
    for client in clients:
        await client.aclose()

    # `up` starts what is missing.
    assert moa("up", "--folder", str(folder), "--port", urls[0].rpartition(":")[2]).returncode == 0
    async with httpx.AsyncClient() as client:
        assert all([(await client.get(f"{url}/health")).is_success for url in urls])
