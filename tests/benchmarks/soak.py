"""Many runs with faults: what is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI

from moa_graph import Layer, MoAError, Proposer, create_moa
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

FAULTS = [
    "status=429&retry_after=0.05",
    "status=500",
    "cut=1",
    "hang",
    "malformed",
    "empty",
    "status=400",
]
AT_ONCE = 25


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """2,000 runs, one of ten with a fault at one of its models; half of them synchronous."""
    logging.getLogger("moa_graph").setLevel(logging.ERROR)  # the faults are meant
    return asyncio.run(_soak(server, 400 if quick else 2000))


async def _soak(server: Server, runs: int) -> dict[str, Any]:
    rng = random.Random(0)
    graphs = [_graph(server.url, None), *(_graph(server.url, fault) for fault in FAULTS)]
    rows, ends = [], {"answered": 0, "failed": 0}

    async def one(graph: Any, sync: bool) -> None:
        try:
            if sync:
                await asyncio.to_thread(graph.invoke, {"messages": "hi"})
            else:
                await graph.ainvoke({"messages": "hi"})
            ends["answered"] += 1
        except MoAError:
            ends["failed"] += 1

    done = 0
    await asyncio.gather(*(one(graph, sync) for graph in graphs for sync in (True, False)))
    for part in range(5):
        rows.append({"runs": done, **_left_behind(graphs)})
        for _ in range(0, runs // 5, AT_ONCE):
            chosen = [
                graphs[rng.randrange(1, len(graphs)) if rng.random() < 0.1 else 0]
                for _ in range(AT_ONCE)
            ]
            await asyncio.gather(*(one(graph, i % 2 == 0) for i, graph in enumerate(chosen)))
            done += AT_ONCE
        server.reset()
        del part
    await asyncio.sleep(1)
    rows.append({"runs": done, **_left_behind(graphs)})
    return {"rows": rows, "ends": ends}


def _graph(url: str, fault: str | None) -> Any:
    def chat(label: str, behaviour: str | None = None) -> ChatOpenAI:
        model = f"{label}?{behaviour or 'latency=0.02'}"
        return ChatOpenAI(model=model, base_url=url, api_key="x")

    models = [chat("a"), Proposer(chat("b", fault), timeout=1), chat("c"), chat("d")]
    aggregator = chat("agg", fault if fault == "status=400" else None)
    return create_moa(Layer(models, quorum=3, grace=0.1, hedge=0.5), aggregator)


def _left_behind(graphs: list[Any]) -> dict[str, Any]:
    gc.collect()
    descriptors = [_target(fd) for fd in Path("/proc/self/fd").iterdir()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    plans = [graph.builder.nodes["aggregator"].runnable.plan for graph in graphs]
    return {
        "memory_mb": pages * 4 / 1024,
        "sockets": sum(target.startswith("socket:") for target in descriptors),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "records": sum(len(plan.runs) for plan in plans),
    }


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def tables(result: dict[str, Any]) -> list[Table]:
    """What there was after that many runs."""
    ends = result["ends"]
    title = f"soak: {ends['answered']} runs answered, {ends['failed']} failed as they must"
    table = Table(title, ["memory MB", "sockets", "tasks", "threads", "records of runs"])
    for row in result["rows"]:
        values = [row[k] for k in ("memory_mb", "sockets", "tasks", "threads", "records")]
        table.add(f"after {row['runs']}", values, digits=0)
    return [table]


def plot(result: dict[str, Any], axes: Any) -> None:
    """Memory over runs."""
    runs = [row["runs"] for row in result["rows"]]
    axes.plot(runs, [row["memory_mb"] for row in result["rows"]], "o-", label="memory, MB")
    axes.plot(runs, [row["sockets"] for row in result["rows"]], "o-", label="sockets")
    axes.plot(runs, [row["threads"] for row in result["rows"]], "o-", label="threads")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("runs")
    axes.set_title("Soak: one run of ten meets a fault")
    axes.legend()
