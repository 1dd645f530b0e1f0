"""Many clients of one server: first token, errors, stalls, memory.

`langgraph dev` on this machine, asked through its OpenAI-compatible endpoint. Each call of a model
takes a second, so the first token cannot come before two seconds are over. The clients and the
models are on the same machine. The development server looks for new runs every half second while it
is idle; the time in its queue is told apart, from the server's own metrics.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
import psutil
from langgraph_sdk import get_client
from matplotlib.axes import Axes
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.report import Table
from tests.benchmarks.server import Server
from tests.integration.langgraph_server import langgraph_dev

CLIENTS = [1, 30, 100, 500]
ROUNDS = 3
SETTLES = 3  # seconds after each round
MIXTURE = {
    "proposers": [f"openai:{name}?latency=1" for name in ("a", "b", "c")],
    "aggregator": "openai:agg?latency=1&tps=50",
}


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """What each number of clients at once sees, and the memory that the server has after them."""
    models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "not used"}
    with (
        tempfile.TemporaryDirectory() as folder,
        langgraph_dev(Path(folder), "--n-jobs-per-worker", "600", **models) as started,
    ):
        return {"clients": asyncio.run(_measure(started.url, 1 if quick else ROUNDS))}


async def _measure(url: str, rounds: int) -> dict[str, dict[str, Any]]:
    async with get_client(url=url) as client:
        await client.assistants.create("mixture", name="load", context=MIXTURE)
    process = _listening_on(int(url.rpartition(":")[2]))
    found: dict[str, dict[str, Any]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _first_token(session, url)  # the first one loads what it needs
        for clients in CLIENTS:
            row = found[str(clients)] = {"first_token": [], "errors": 0, "stall": 0.0, "rss": []}
            before = await _queue(session, url)
            for _ in range(max(rounds, 5 if clients == 1 else 0)):
                async with _watched(session, url, row):
                    asking = (_first_token(session, url) for _ in range(clients))
                    told = await asyncio.gather(*asking, return_exceptions=True)
                row["first_token"] += [one for one in told if isinstance(one, float)]
                row["errors"] += sum(isinstance(one, BaseException) for one in told)
                await asyncio.sleep(SETTLES)
                row["rss"].append(process.memory_info().rss / 2**20)
            after = await _queue(session, url)
            row["queue"] = (after[0] - before[0]) / max(1.0, after[1] - before[1])
    return found


def _listening_on(port: int) -> psutil.Process:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(
                c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections()
            ):
                return process
    raise RuntimeError(f"No process listens on port {port}.")


@asynccontextmanager
async def _watched(
    session: aiohttp.ClientSession, url: str, row: dict[str, Any]
) -> AsyncIterator[None]:
    """Ask `/ok` every 50 ms, and keep the longest time to its answer, in seconds."""

    async def watch() -> None:
        while True:
            started = time.perf_counter()
            async with session.get(f"{url}/ok") as told:
                await told.read()
            row["stall"] = max(row["stall"], time.perf_counter() - started)
            await asyncio.sleep(0.05)

    gc.collect()
    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _queue(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Seconds in the queue of all runs so far, and their number."""
    async with session.get(f"{url}/metrics") as told:
        families = text_string_to_metric_families(await told.text())
    (queue,) = (family for family in families if family.name == "moa_queue_seconds")
    values = {sample.name: sample.value for sample in queue.samples}
    return values["moa_queue_seconds_sum"], values["moa_queue_seconds_count"]


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
    """Seconds, errors, and the memory after the last round against that after the first."""
    alone = median(result["clients"]["1"]["first_token"])
    columns = ["p50", "p95", "p95 : one client", "in queue", "errors", "/ok at most"]
    table = Table(
        "Seconds to the first token of many streaming clients (each call of a model takes 1 s)",
        [*columns, "MB after", "MB grown"],
    )
    for clients, row in result["clients"].items():
        p95 = quantiles(row["first_token"], n=20, method="inclusive")[-1]
        seconds = [median(row["first_token"]), p95, p95 / alone, row["queue"]]
        grown = row["rss"][-1] - row["rss"][0]
        rest = [row["errors"], row["stall"], row["rss"][-1], grown]
        table.add(f"{clients} at once", [*seconds, *rest])
    return [table]


def plot(result: dict[str, Any], axes: Axes) -> None:
    """How the times are spread, by the number of clients."""
    names = list(result["clients"])
    times = [result["clients"][name]["first_token"] for name in names]
    axes.boxplot(times, tick_labels=names)
    axes.set(
        xlabel="streaming clients at once",
        ylabel="seconds to the first token",
        ylim=(0, None),
        title="One server on two cores; two calls of a second each",
    )
