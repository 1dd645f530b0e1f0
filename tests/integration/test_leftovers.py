"""Stateless runs that are cancelled while they wait in the queue leave nothing."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress

import httpx
import pytest
from langgraph_sdk import get_client

from tests.fake_server import eventually

JOBS = 10  # of the server
MESSAGES = [{"role": "user", "content": "hi"}]
MIXTURE = {"proposers": ["openai:a"], "aggregator": "openai:agg"}


@pytest.fixture
async def client(langgraph_server):
    async with get_client(url=langgraph_server.url) as client:
        yield client


async def disconnected(url: str, path: str, body: dict) -> None:
    """Send a request, and disconnect before it is answered."""
    async with httpx.AsyncClient(base_url=url) as client:
        with suppress(httpx.ReadTimeout):
            async with client.stream("POST", path, json=body, timeout=0.3) as response:
                async for _ in response.aiter_raw():
                    pass


async def test_runs_that_never_began_leave_no_thread(client, langgraph_server, server):
    mark = {"test": uuid.uuid4().hex}
    hangs = {**MIXTURE, "proposers": ["openai:a?hang"]}
    run = {"assistant_id": "mixture", "input": {"messages": MESSAGES}, "metadata": mark}
    created = await asyncio.gather(
        *(client.runs.create(None, context=hangs, **run) for _ in range(JOBS))
    )
    await eventually(lambda: len(server.of("a")) == JOBS)
    asked = {**run, "context": MIXTURE, "on_disconnect": "cancel"}
    name = uuid.uuid4().hex
    model = await client.assistants.create("mixture", context=MIXTURE, name=name)
    chat = {"model": name, "messages": MESSAGES, "metadata": mark}
    await asyncio.gather(
        disconnected(langgraph_server.url, "/runs/stream", asked),
        disconnected(langgraph_server.url, "/runs/wait", asked),
        disconnected(langgraph_server.url, "/v1/chat/completions", chat),
        disconnected(langgraph_server.url, "/v1/chat/completions", {**chat, "stream": True}),
    )
    for end in (
        lambda one: client.runs.cancel(one["thread_id"], one["run_id"]),
        lambda one: client.runs.cancel(one["thread_id"], one["run_id"], action="rollback"),
        lambda one: client.runs.delete(one["thread_id"], one["run_id"]),
    ):
        await end(await client.runs.create(None, context=MIXTURE, **run))
    busy = {one["thread_id"] for one in created}
    for _ in range(200):
        left = {t["thread_id"] for t in await client.threads.search(metadata=mark, limit=100)}
        if left == busy:
            break
        await asyncio.sleep(0.1)
    assert left == busy  # those of runs that have begun are deleted by the server
    await client.assistants.delete(model["assistant_id"])
    for one in created:
        await client.runs.cancel(one["thread_id"], one["run_id"])
    for _ in range(200):
        if not (left := await client.threads.search(metadata=mark)):
            break
        await asyncio.sleep(0.1)
    assert not left
    assert not server.of("agg")
