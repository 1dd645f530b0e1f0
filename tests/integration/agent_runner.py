"""Run an agent in a process that a test may kill: `python -m tests.integration.agent_runner JSON`.

{"url": "http://127.0.0.1:…/v1", "folder": "…", "face": "model", "mode": "sync", "act": "act"}
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.cache.sqlite import SqliteCache
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from moa_graph import ChatMoA, MoAMiddleware, create_moa

CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION = {"messages": "What is it?"}


def build(order: dict[str, Any], saver: Any) -> Any:
    """The agent, with its proposals in one of three places."""

    def chat(model: str) -> ChatOpenAI:
        return ChatOpenAI(
            model=model,
            base_url=order["url"],
            api_key="x",
            max_retries=0,
            http_async_client=httpx.AsyncClient(),  # LangChain's own is shared with other loops
        )

    @tool
    def search(query: str) -> str:
        """Search the web."""
        return f"results for {query}"

    face = order["face"]
    cache = SqliteCache(path=str(Path(order["folder"]) / "cache")) if "cache" in face else None
    models = [chat(name) for name in ("a", "b", order.get("slow", "c"))]
    moa = create_moa(models, chat(order["act"]), cache=cache)
    if face.startswith("model"):
        return create_agent(ChatMoA(graph=moa), tools=[search], checkpointer=saver)
    own = MoAMiddleware(moa, "final" if face == "review" else "turn")
    return create_agent(chat(order["act"]), tools=[search], middleware=[own], checkpointer=saver)


@asynccontextmanager
async def agent(order: dict[str, Any]) -> Any:
    """The agent, with the checkpointer of its mode."""
    store = str(Path(order["folder"]) / "threads")
    if order["mode"] == "sync":
        with SqliteSaver.from_conn_string(store) as saver:
            yield build(order, saver)
    else:
        async with AsyncSqliteSaver.from_conn_string(store) as saver:
            yield build(order, saver)


async def run(order: dict[str, Any], given: Any) -> Any:
    """Run the agent to its end."""
    async with agent(order) as made:
        if order["mode"] == "sync":
            return await asyncio.to_thread(made.invoke, given, CONFIG)
        return await made.ainvoke(given, CONFIG)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1]), QUESTION))
