"""Runs graphs in processes that a test may kill: one line of JSON on stdin, one process.

    {"url": "http://127.0.0.1:…/v1", "store": "file or address", "thread": "1", "mode": "invoke"}

Answers with the process's id. The imports are made once; each run is a fork.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from moa_graph import create_moa

LAYERS = [["a1", "b1", "c1"], ["a2", "b2", "c2"]]
LATENCIES = {"a": 0.05, "b": 0.15, "c": 0.3}


def build(url: str, saver: Any) -> Any:
    def chat(label: str) -> ChatOpenAI:
        model = f"{label}?latency={LATENCIES.get(label[0], 0.1)}"
        return ChatOpenAI(model=model, base_url=url, api_key="x")

    layers = [[chat(label) for label in layer] for layer in LAYERS]
    return create_moa(layers, chat("x"), checkpointer=saver)


@contextmanager
def saver(store: str) -> Iterator[Any]:
    postgres = store.startswith("postgres")
    with (PostgresSaver if postgres else SqliteSaver).from_conn_string(store) as opened:
        yield opened


@asynccontextmanager
async def async_saver(store: str) -> Any:
    postgres = store.startswith("postgres")
    cls: Any = AsyncPostgresSaver if postgres else AsyncSqliteSaver
    async with cls.from_conn_string(store) as opened:
        yield opened


def run(url: str, store: str, thread: str, mode: str) -> None:
    given, config = {"messages": f"question {thread}"}, {"configurable": {"thread_id": thread}}

    async def arun() -> None:
        async with async_saver(store) as opened:
            await build(url, opened).ainvoke(given, config)

    if mode == "ainvoke":
        asyncio.run(arun())
    else:
        with saver(store) as opened:
            build(url, opened).invoke(given, config)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            code = 1
            try:
                run(**json.loads(line))
                code = 0
            finally:
                os._exit(code)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
