"""What grows with layers, proposers and runs in flight: CPU, memory and prompt tokens.

The models sleep inside this process, so that what is measured is the graph and not an SDK; beside
them a bare graph of the same shape, with the same models.
"""

from __future__ import annotations

import asyncio
import gc
import json
import operator
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from moa_graph import Layer, create_moa
from moa_graph.calling.references import estimated_prompt
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

IN_FLIGHT = [125, 250, 500, 1000]
SHAPES = [(2, 2), (2, 4), (2, 8), (3, 4), (5, 4), (9, 4)]
ANSWER = "word " * 200
SECONDS = 8  # that a call takes while memory is read


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Each figure in a fresh process: memory that was used once is not given back."""
    memory = [
        {"kind": kind, "in_flight": n, **_fresh("memory", kind, n)}
        for n in (IN_FLIGHT[-1:] if quick else IN_FLIGHT)
        for kind in ("moa-graph", "moa-graph, quorum", "bare graph")
    ]
    shapes = [
        {"layers": layers, "proposers": proposers, **_fresh("shape", layers, proposers)}
        for layers, proposers in (SHAPES[1:3] if quick else SHAPES)
    ]
    return {"memory": memory, "shapes": shapes}


def tables(result: dict[str, Any]) -> list[Table]:
    """Memory and CPU by runs in flight; CPU and tokens by shape."""
    counts = sorted({row["in_flight"] for row in result["memory"]})
    memory = Table("runs in flight: KB of memory per run (4 proposers)", [str(n) for n in counts])
    cpu = Table("runs in flight: CPU ms per run", [str(n) for n in counts])
    for kind in dict.fromkeys(row["kind"] for row in result["memory"]):
        rows = [row for row in result["memory"] if row["kind"] == kind]
        memory.add(kind, [row["kb"] for row in rows], digits=0)
        cpu.add(kind, [row["cpu_ms"] for row in rows], digits=1)
    shapes = Table("shape", ["CPU ms a run", "CPU ms a call", "prompt tokens a run"])
    for row in result["shapes"]:
        calls = (row["layers"] - 1) * row["proposers"] + 1
        values = [row["cpu_ms"], row["cpu_ms"] / calls, row["prompt_tokens"]]
        shapes.add(f"{row['layers']} layers, {row['proposers']} proposers", values)
    return [memory, cpu, shapes]


def plot(result: dict[str, Any], axes: Any) -> None:
    """Memory over runs in flight."""
    for kind in dict.fromkeys(row["kind"] for row in result["memory"]):
        rows = [row for row in result["memory"] if row["kind"] == kind]
        counts = [row["in_flight"] for row in rows]
        axes.plot(counts, [r["kb"] * r["in_flight"] / 1024 for r in rows], "o-", label=kind)
    axes.set_xlabel("runs in flight")
    axes.set_ylabel("MB")
    axes.set_title("Growth of memory")
    axes.legend()


def _fresh(*what: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, *map(str, what)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _graph(kind: str, layers: int, proposers: int, model: Any) -> Any:
    if kind == "moa-graph":
        return create_moa([model] * proposers, model, layers=layers)
    if kind == "moa-graph, quorum":
        return create_moa(Layer([model] * proposers, quorum=proposers), model, layers=layers)

    class State(MessagesState):
        proposals: Annotated[list[str], operator.add]

    async def propose(state: State) -> dict[str, Any]:
        return {"proposals": [(await model.ainvoke(state["messages"])).text]}

    async def aggregate(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(State)
    builder.add_node("aggregator", aggregate)
    builder.add_edge("aggregator", END)
    for i in range(proposers):
        builder.add_node(f"p{i}", propose)
        builder.add_edge(START, f"p{i}")
        builder.add_edge(f"p{i}", "aggregator")
    return builder.compile()


def _resident() -> float:
    """KB of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4.0


async def _memory(kind: str, in_flight: int) -> dict[str, float]:
    async def sleep(messages: Any) -> AIMessage:
        await asyncio.sleep(seconds)
        return AIMessage(ANSWER)

    seconds = 0.0
    graph = _graph(kind, 2, 4, RunnableLambda(sleep))
    for _ in range(20):
        await graph.ainvoke({"messages": "warm"})
    gc.collect()
    seconds, before, cpu = SECONDS, _resident(), time.process_time()
    runs = [asyncio.create_task(graph.ainvoke({"messages": "hi"})) for _ in range(in_flight)]
    await asyncio.sleep(0.8 * SECONDS)
    kb = (_resident() - before) / in_flight
    seconds = 0.0
    await asyncio.gather(*runs)
    return {"kb": kb, "cpu_ms": (time.process_time() - cpu) / in_flight * 1000}


async def _shape(layers: int, proposers: int) -> dict[str, float]:
    tokens = 0

    async def answer(messages: Any) -> AIMessage:
        nonlocal tokens
        tokens += estimated_prompt(messages)
        return AIMessage(ANSWER)

    graph = _graph("moa-graph", layers, proposers, RunnableLambda(answer))
    for _ in range(10):
        await graph.ainvoke({"messages": "warm"})
    tokens, cpu, runs = 0, time.process_time(), 50
    for _ in range(runs):
        await graph.ainvoke({"messages": "hi"})
    return {
        "cpu_ms": (time.process_time() - cpu) / runs * 1000,
        "prompt_tokens": tokens / runs,
    }


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        figures = asyncio.run(_memory(sys.argv[2], int(sys.argv[3])))
    else:
        figures = asyncio.run(_shape(int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(figures))
