"""What a turn of an agent costs, with a mixture as its model, its adviser or its tool.

A deterministic agent calls a tool a number of times and then answers. On the server, the first token
comes later with every prompt token that no earlier prompt of the same model began with, as with a
provider's prompt cache.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

from genai_prices import Usage, calc_price
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import ChatMoA, MoAMiddleware, consult_tool, create_moa
from moa_graph.middleware import when_repeating
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

LATENCY, PREFILL, TOKENS_PER_SECOND = 0.15, 20_000, 400
PROPOSERS, ADVICE, RESULT, PROMPT = 3, 1_200, 300, 1_500  # words
ACTING, ADVISING = "gpt-5.2", "gpt-5-mini"  # whose prices are taken
BOUND = 1.05
SHAPES = {"4 steps": (4, 1), "8 steps": (8, 1), "16 steps": (16, 1), "3 turns of 8": (8, 3)}
ALONE, TURN = "acting model alone", 'ChatMoA, consult="turn"'
KEPT = f"{TURN}, references kept"


@tool
def search(query: str) -> str:
    """Search the web."""
    return " ".join(f"{query}{i:03}" for i in range(RESULT))


def _model(server: Server, label: str, **does: Any) -> ChatOpenAI:
    behaviour = {"latency": LATENCY, "prefill": PREFILL, "tps": TOKENS_PER_SECOND, **does}
    name = f"{label}?" + "&".join(f"{key}={value}" for key, value in behaviour.items())
    return ChatOpenAI(model=name, base_url=server.url, api_key="none", stream_usage=True)


def _contenders(server: Server, steps: int) -> dict[str, Callable[[], dict[str, Any]]]:
    def acting() -> ChatOpenAI:
        return _model(server, "act", steps=steps)

    def moa() -> Any:
        models = [_model(server, f"p{i}", tps=2_000, varies="") for i in range(PROPOSERS)]
        return create_moa(models, acting())

    def advised(*given: Any) -> dict[str, Any]:
        return {"model": acting(), "middleware": [MoAMiddleware(moa(), *given)]}

    return {
        ALONE: lambda: {"model": acting()},
        'ChatMoA, consult="always"': lambda: {"model": ChatMoA(graph=moa(), consult="always")},
        TURN: lambda: {"model": ChatMoA(graph=moa())},
        KEPT: lambda: {"model": ChatMoA(graph=moa(), keep_references=True)},
        'MoAMiddleware, consult="turn"': advised,
        'MoAMiddleware, consult="final"': lambda: advised("final"),
        "MoAMiddleware, when repeating, once": lambda: advised(when_repeating, 1),
        "consult_tool, asked once": lambda: {
            "model": acting(),
            "tools": [consult_tool(moa()), search],
        },
    }


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Every contender in every shape; `quick` takes eight steps alone."""
    del peers
    shapes = {"8 steps": SHAPES["8 steps"]} if quick else SHAPES
    rows: dict[str, dict[str, Any]] = {}
    with asyncio.Runner() as runner:
        for shape, (steps, turns) in shapes.items():
            for name, make in _contenders(server, steps).items():
                gc.collect()
                gc.freeze()
                server.reset()
                server.answer(" ".join(f"word{i:04}" for i in range(ADVICE)))
                server.answer(" ".join(f"answer{i:03}" for i in range(200)), "act")
                rows.setdefault(shape, {})[name] = runner.run(_measured(server, make(), turns))
    return {"rows": rows}


async def _measured(server: Server, options: dict[str, Any], turns: int) -> dict[str, Any]:
    system = " ".join(f"rule{i:04}" for i in range(PROMPT))
    agent = create_agent(
        **{"tools": [search], **options}, system_prompt=system, checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": 200}
    started = time.perf_counter()
    for turn in range(turns):
        await agent.ainvoke({"messages": f"Question {turn}?"}, config)
    wall = time.perf_counter() - started
    calls = server.spent()
    own = [call for call in calls if call[0] == "act"]
    panel = [call for call in calls if call[0] != "act"]
    later = own[1:]
    return {
        "wall": wall,
        "proposers": len(panel),
        "acting": len(own),
        "prompt": sum(call[1] for call in calls),
        "cached": sum(call[2] for call in later) / sum(call[1] for call in later),
        "usd": _price(own, ACTING) + _price(panel, ADVISING),
        "round": max((end - begin for *_, begin, end in panel[:PROPOSERS]), default=0.0),
        "first_prompt": own[0][1] - own[0][2],
    }


def _price(calls: list[tuple[str, int, int, int, float, float]], model: str) -> float:
    usage = Usage(
        input_tokens=sum(call[1] for call in calls),
        cache_read_tokens=sum(call[2] for call in calls),
        output_tokens=sum(call[3] for call in calls),
    )
    return float(calc_price(usage, model_ref=model).total_price)


def tables(result: dict[str, Any]) -> list[Table]:
    """Calls, tokens, seconds and dollars of each shape."""
    made = []
    for shape, rows in result["rows"].items():
        table = Table(
            f"An agent, {shape}, {PROPOSERS} proposers, answers of {ADVICE} words, results of "
            f"{RESULT}; prices of {ACTING} and {ADVISING}",
            ["proposer calls", "acting calls", "prompt tokens", "cached, %", "points below alone",
             "wall, s", "over its floor", "US cents", "over alone"],
        )  # fmt: skip
        alone = rows[ALONE]
        for name, row in rows.items():
            # One round of proposers, and their references read once in each turn.
            turns = int(shape.split()[0]) if "turns" in shape else 1
            read = (row["first_prompt"] - alone["first_prompt"]) / PREFILL
            floor = alone["wall"] + turns * (row["round"] + read)
            table.add(
                name,
                [row["proposers"], row["acting"], row["prompt"], 100 * row["cached"],
                 100 * (alone["cached"] - row["cached"]), row["wall"], row["wall"] / floor,
                 100 * row["usd"], row["usd"] / alone["usd"]],
            )  # fmt: skip
        made.append(table)
    return made


def plot(result: dict[str, Any], axes: Any) -> None:
    """Dollars against the number of steps."""
    shapes = [shape for shape in result["rows"] if "turns" not in shape]
    steps = [int(shape.split()[0]) for shape in shapes]
    for name in result["rows"][shapes[0]]:
        axes.plot(steps, [100 * result["rows"][s][name]["usd"] for s in shapes], "o-", label=name)
    axes.set_xlabel("tool calls in a turn")
    axes.set_ylabel("US cents")
    axes.set_title("What a turn of an agent costs")
    axes.legend(fontsize=7)
