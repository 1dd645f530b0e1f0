"""A server that is told to stop: streams finish, or end with an error that the client sees."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time

import httpx
import openai
import psutil
import pytest
from langgraph_sdk import get_sync_client
from mcp import Client
from openai import OpenAI

from tests.fake_server import eventually
from tests.integration.langgraph_server import langgraph_dev

MIXTURE = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg?tps=20"}
ANSWER = "word " * 100


@pytest.fixture
def started(server, tmp_path):
    """`started(seconds)`: a server with that time to finish, and the name of an assistant."""
    opened = []
    server.answers["agg"] = ANSWER

    def start(seconds: float):
        models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test-0123456789"}
        manager = langgraph_dev(tmp_path, MOA_DRAIN_SECONDS=str(seconds), MOA_MCP="1", **models)
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


def streamed(url: str) -> tuple[str, bool, openai.APIError | None]:
    """The text of a stream under which the server is stopped, whether it was whole, its error."""
    text, whole, error, told = "", False, None, False
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        try:
            for chunk in client.chat.completions.create(
                model="slow", messages=[{"role": "user", "content": "hi"}], stream=True
            ):
                choice = chunk.choices[0]
                text += choice.delta.content or ""
                whole = whole or choice.finish_reason == "stop"
                if text and not told:
                    told = True
                    stop(url)
        except openai.APIError as raised:
            error = raised
    return text, whole, error


@pytest.mark.full
def test_a_stream_that_can_finish_is_whole(started):
    text, whole, error = streamed(started(60).url)
    assert error is None
    assert whole
    assert text == ANSWER


@pytest.mark.full
def test_a_stream_that_is_cut_is_an_error(started):
    text, whole, error = streamed(started(0.5).url)
    assert not whole
    assert 0 < len(text) < len(ANSWER)
    assert error is not None
    assert "shutting down" in str(error) or "cancelled" in str(error)


@pytest.mark.full
def test_an_answer_that_is_cut_is_an_error_that_is_not_repeated(started, server):
    url = started(0.5).url

    def stop_when_asked():
        while not server.of("agg"):
            time.sleep(0.05)
        stop(url)

    stopping = threading.Thread(target=stop_when_asked)
    stopping.start()
    messages = [{"role": "user", "content": "hi"}]
    with (
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2) as client,
        pytest.raises(openai.APIError),
    ):
        client.chat.completions.create(model="slow", messages=messages)
    stopping.join()
    assert len(server.of("a")) == 1


@pytest.mark.full
@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_call_of_the_mcp_tool_that_is_cut_is_an_error_of_the_tool(started, server, era):
    url = started(0.5).url
    async with Client(f"{url}/mcp", mode=era) as client:
        arguments = {"question": "hi", "mixture": "slow"}
        calling = asyncio.create_task(client.call_tool("consult", arguments))
        await eventually(lambda: server.of("agg"))
        stop(url)
        result = await calling
    assert result.is_error
    assert "shutting down" in result.content[0].text
    assert ANSWER[:20] not in result.content[0].text


@pytest.mark.full
def test_a_run_that_is_cut_ends_its_stream_with_an_error(started):
    server = started(0.5)
    body = {
        "assistant_id": "mixture",
        "context": MIXTURE,
        "input": {"messages": [{"role": "user", "content": "hi"}]},
        "stream_mode": ["messages-tuple"],
    }
    events, deadline = [], time.monotonic() + 60
    with httpx.Client(timeout=60) as client:
        try:
            with client.stream("POST", f"{server.url}/runs/stream", json=body) as response:
                for line in response.iter_lines():
                    assert time.monotonic() < deadline
                    if line.startswith("event: "):
                        events.append(line[7:])
                        if events.count("messages") == 3:
                            stop(server.url)
        except httpx.HTTPError as error:
            events.append(f"error: {error}")
    assert "error" in events[-1], json.dumps(events[-5:])
