"""A run that is cancelled elsewhere while a client of `/v1` waits for its answer."""

from __future__ import annotations

import asyncio

import openai
from langgraph_sdk import get_client

from tests.fake_server import FakeServer, eventually


async def cancelled_elsewhere(
    urls: list[str], key: str, model: str, server: FakeServer, *, stream: bool, bulk: bool
) -> tuple[str, openai.APIError | None]:
    """Ask for an answer, cancel its run once the aggregator writes, and return what came.

    Args:
        urls: The server that is asked, and the one that cancels the run.
        key: Key of both.
        model: Name of an assistant whose aggregator is slow.
        server: Where its models are.
        stream: Whether the answer is streamed.
        bulk: Whether the run is cancelled through `/runs/cancel`.
    """
    text = ""

    async def ask() -> openai.APIError | None:
        nonlocal text
        async with openai.AsyncOpenAI(base_url=f"{urls[0]}/v1", api_key=key) as client:
            try:
                given = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "hi"}], stream=stream
                )
                if not stream:
                    text = given.choices[0].message.content
                    return None
                async for chunk in given:
                    text += chunk.choices[0].delta.content or ""
            except openai.APIError as error:
                return error
        return None

    asking = asyncio.create_task(ask())
    await eventually(lambda: server.of("agg") and server.of("agg")[-1].first_token)
    await eventually(lambda: text or not stream)
    async with get_client(url=urls[-1], api_key=key) as other:
        busy = [t for t in await other.threads.search(limit=100) if t["status"] == "busy"]
        thread = max(busy, key=lambda found: found["created_at"])["thread_id"]
        (run,) = await other.runs.list(thread)
        if bulk:
            await other.runs.cancel_many(thread_id=thread, run_ids=[run["run_id"]])
        else:
            await other.runs.cancel(thread, run["run_id"])
    error = await asyncio.wait_for(asking, 20)
    await eventually(lambda: server.of("agg")[-1].disconnected)
    return text, error
