"""A server that is told to stop: streams finish, or end with an error that the client sees."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial

import httpx
import openai
import psutil
import pytest
from langgraph_sdk import get_sync_client
from mcp import Client
from openai import AsyncOpenAI, OpenAI

from tests.fake_server import eventually
from tests.integration.langgraph_server import langgraph_dev

MIXTURE = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg?tps=20"}
ANSWER = "word " * 100
LONG_ANSWER = "word " * 1000
QUESTION = [{"role": "user", "content": "hi"}]


@pytest.fixture
def started(server, tmp_path):
    """`started(seconds)`: a server with that time to finish, and the name of an assistant."""
    opened = []
    server.answers["agg"] = ANSWER

    def start(seconds: float):
        models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test-0123456789"}
        manager = langgraph_dev(
            tmp_path,
            "--n-jobs-per-worker",
            "10",
            MOA_DRAIN_SECONDS=str(seconds),
            MOA_MCP="1",
            **models,
        )
        running = manager.__enter__()
        opened.append(manager)
        client = get_sync_client(url=running.url)
        client.assistants.create("mixture", name="slow", context=MIXTURE)
        return running

    yield start
    for manager in opened:
        manager.__exit__(None, None, None)


def stop(url: str) -> None:
    """Send SIGTERM to the process that listens there."""
    port = int(url.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            os.kill(connection.pid, signal.SIGTERM)
            return
    raise AssertionError("nothing listens there")


@pytest.mark.full
def test_a_stream_that_can_finish_is_whole(started):
    url, text, whole, told = started(60).url, "", False, False
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for chunk in client.chat.completions.create(model="slow", messages=QUESTION, stream=True):
            choice = chunk.choices[0]
            text += choice.delta.content or ""
            whole = whole or choice.finish_reason == "stop"
            if text and not told:
                told = True
                stop(url)
    assert whole
    assert text == ANSWER


async def cut_stream(url: str, begun: set[str]) -> None:
    text, whole = "", False

    async def read() -> None:
        nonlocal text, whole
        stream = await client.chat.completions.create(model="slow", messages=QUESTION, stream=True)
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            whole = whole or chunk.choices[0].finish_reason == "stop"
            if text:
                begun.add("stream")

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIError, match=r"shutting down|cancelled"):
            await read()
    assert not whole
    assert 0 < len(text) < len(LONG_ANSWER)


async def cut_answer(url: str, begun: set[str]) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2) as client:
        with pytest.raises(openai.APIError):
            await client.chat.completions.create(model="slow", messages=QUESTION)


async def cut_tool(url: str, begun: set[str], era: str) -> None:
    async with Client(f"{url}/mcp", mode=era) as client:
        result = await client.call_tool("consult", {"question": "hi", "mixture": "slow"})
    assert result.is_error
    assert "shutting down" in result.content[0].text
    assert ANSWER[:20] not in result.content[0].text


async def cut_run(url: str, begun: set[str]) -> None:
    body = {
        "assistant_id": "mixture",
        "context": MIXTURE,
        "input": {"messages": QUESTION},
        "stream_mode": ["messages-tuple"],
    }
    events = []
    async with httpx.AsyncClient(timeout=60) as client:
        try:
            async with client.stream("POST", f"{url}/runs/stream", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        events.append(line[7:])
                        if events.count("messages") == 3:
                            begun.add("run")
        except httpx.HTTPError as error:
            events.append(f"error: {error}")
    assert "error" in events[-1], json.dumps(events[-5:])


@pytest.mark.full
async def test_what_is_cut_is_an_error_for_every_client_and_is_not_repeated(started, server):
    """All at once, because a server takes long to start."""
    url = started(0.5).url
    server.answers["agg"] = LONG_ANSWER
    tools = [partial(cut_tool, era=era) for era in ("legacy", "auto")]
    ways = [cut_stream, cut_answer, *tools, cut_run]
    begun: set[str] = set()
    calls = [asyncio.create_task(way(url, begun)) for way in ways]
    await eventually(lambda: len(server.of("agg")) == len(ways) and len(begun) == 2, 30)
    stop(url)
    async with asyncio.timeout(60):
        await asyncio.gather(*calls)
    assert len(server.of("a")) == len(ways)
