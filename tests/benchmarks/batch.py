"""From how many prompts on Ray's actors beat `abatch` in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from moa_graph.batch import answer_prompts
from moa_graph.presets import Configuration
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

SIZES, QUICK = [100, 500, 2000, 8000], [100, 500]
ACTORS, AT_ONCE = 2, 32
MIXTURE = Configuration(
    proposers=[f"openai:{name}?latency=0.1" for name in ("a", "b", "c")],
    aggregator="openai:agg?latency=0.1",
)


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Seconds for that many prompts: with as many in flight in one process, and in two actors."""
    os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "not used"}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    sizes = QUICK if quick else SIZES
    with asyncio.Runner() as runner:
        one = {size: _abatch(runner, size) for size in sizes}
    rows = {str(size): {"abatch": one[size], "Ray": _ray(size)} for size in sizes}
    return {"actors": ACTORS, "at_once": AT_ONCE, "seconds": rows}


def _abatch(runner: asyncio.Runner, size: int) -> float:
    graph = MIXTURE.create()
    inputs = [{"messages": f"question {number}"} for number in range(size)]
    started = time.perf_counter()
    states = runner.run(graph.abatch(inputs, {"max_concurrency": ACTORS * AT_ONCE}))
    assert all(state["messages"][-1].text.startswith("agg") for state in states)
    return time.perf_counter() - started


def _ray(size: int) -> float:
    import ray

    started = time.perf_counter()
    ray.init(
        _node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        lines = (json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(size))
        prompts.write_text("".join(lines))
        answers = answer_prompts(
            prompts, MIXTURE, Path(folder, "answers"), actors=ACTORS, at_once=AT_ONCE
        )
        assert answers.count() == size
    ray.shutdown()
    return time.perf_counter() - started


def tables(result: dict[str, Any]) -> list[Table]:
    """Seconds, and how many times faster the actors are."""
    table = Table(
        f"Prompts over {ACTORS} actors of {AT_ONCE} at once, Ray's start included: seconds",
        ["abatch", "Ray", "abatch : Ray"],
    )
    for size, seconds in result["seconds"].items():
        one, many = seconds["abatch"], seconds["Ray"]
        table.add(f"{size} prompts", [one, many, one / many])
    return [table]


def plot(result: dict[str, Any], axes: Axes) -> None:
    """Seconds by the number of prompts."""
    sizes = [int(size) for size in result["seconds"]]
    for name in ("abatch", "Ray"):
        seconds = [by[name] for by in result["seconds"].values()]
        axes.plot(sizes, seconds, "o-", label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="prompts", ylabel="seconds",
        title="One process, and two actors of Ray Data",
    )  # fmt: skip
    axes.legend()
