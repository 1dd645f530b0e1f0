"""Many clients of one server: how much later does the first token come?

`langgraph dev` on this machine, asked through its OpenAI-compatible endpoint. Each call of a model
takes a second, so the first token cannot come before two seconds are over.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
from langgraph_sdk import get_client
from matplotlib.axes import Axes

from tests.benchmarks.report import Table
from tests.benchmarks.server import Server
from tests.integration.langgraph_server import langgraph_dev

CLIENTS = [1, 10, 30, 100]
ROUNDS = 3
MIXTURE = {
    "proposers": [f"openai:{name}?latency=1" for name in ("a", "b", "c")],
    "aggregator": "openai:agg?latency=1&tps=50",
}


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Seconds to the first token, for each number of clients at once."""
    models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "not used"}
    with (
        tempfile.TemporaryDirectory() as folder,
        langgraph_dev(Path(folder), "--n-jobs-per-worker", "150", **models) as started,
    ):
        return {"first_token": asyncio.run(_measure(started.url, 1 if quick else ROUNDS))}


async def _measure(url: str, rounds: int) -> dict[str, list[float]]:
    async with get_client(url=url) as client:
        await client.assistants.create("mixture", name="load", context=MIXTURE)
    seconds: dict[str, list[float]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _first_token(session, url)  # the first one loads what it needs
        for clients in CLIENTS:
            times = seconds.setdefault(str(clients), [])
            for _ in range(max(rounds, 5 if clients == 1 else 0)):
                asking = (_first_token(session, url) for _ in range(clients))
                times += await asyncio.gather(*asking)
    return seconds


async def _first_token(session: aiohttp.ClientSession, url: str) -> float:
    question = {"model": "load", "messages": [{"role": "user", "content": "hi there"}]}
    started, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/chat/completions", json={**question, "stream": True}) as r:
        assert r.status == 200, await r.text()
        last = b""
        async for line in r.content:
            assert b'"error"' not in line, line
            if not first and b'"content": "agg' in line:
                first = time.perf_counter() - started
            last = line.strip() or last
    assert last == b"data: [DONE]"
    return first


def tables(result: dict[str, Any]) -> list[Table]:
    """Medians and the slowest twentieth, in seconds and against one client."""
    alone = median(result["first_token"]["1"])
    table = Table(
        "Seconds to the first token of many streaming clients (each call of a model takes 1 s)",
        ["median", "p95", "p95 : one client"],
    )
    for clients, seconds in result["first_token"].items():
        p95 = quantiles(seconds, n=20, method="inclusive")[-1]
        table.add(f"{clients} at once", [median(seconds), p95, p95 / alone])
    return [table]


def plot(result: dict[str, Any], axes: Axes) -> None:
    """How the times are spread, by the number of clients."""
    names = list(result["first_token"])
    axes.boxplot([result["first_token"][name] for name in names], tick_labels=names)
    axes.set(
        xlabel="streaming clients at once",
        ylabel="seconds to the first token",
        ylim=(0, None),
        title="One server on two cores; two calls of a second each",
    )
