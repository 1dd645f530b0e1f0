"""`answer_prompts` in one process beside `abatch`, and from how many prompts on Ray's actors win."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    rows: dict[str, dict[str, dict[str, float]]] = {}
    with asyncio.Runner() as runner:
        for size in sizes:
            # In turn and in both orders, so that a busy machine slows both.
            timed = [(_abatch(runner, size), _one(size)), (_one(size), _abatch(runner, size))[::-1]]
            rows[str(size)] = {
                name: {kind: min(pair[i][kind] for pair in timed) for kind in ("seconds", "cpu")}
                for i, name in enumerate(("abatch", "one process"))
            }
    for size in sizes:
        rows[str(size)]["Ray"] = {"seconds": _ray(size)}
    return {"actors": ACTORS, "at_once": AT_ONCE, "times": rows}


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    times: dict[str, float] = {}
    seconds, cpu = time.perf_counter(), time.process_time()
    yield times
    times |= {"seconds": time.perf_counter() - seconds, "cpu": time.process_time() - cpu}


def _abatch(runner: asyncio.Runner, size: int) -> dict[str, float]:
    with _timed() as times:
        graph = MIXTURE.create()
        inputs = [{"messages": f"question {number}"} for number in range(size)]
        states = runner.run(graph.abatch(inputs, {"max_concurrency": ACTORS * AT_ONCE}))
        assert all(state["messages"][-1].text.startswith("agg") for state in states)
    return times


def _one(size: int) -> dict[str, float]:
    with _timed() as times, tempfile.TemporaryDirectory() as folder:
        answers = answer_prompts(
            _prompts(folder, size), MIXTURE, Path(folder, "answers"),
            processes=1, at_once=ACTORS * AT_ONCE,
        )  # fmt: skip
        assert all(row["answer"].startswith("agg") for row in answers)
        assert len(answers) == size
    return times


def _prompts(folder: str, size: int) -> Path:
    prompts = Path(folder, "prompts.jsonl")
    lines = (json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(size))
    prompts.write_text("".join(lines))
    return prompts


def _ray(size: int) -> float:
    import ray

    started = time.perf_counter()
    ray.init(
        _node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as folder:
        answers = answer_prompts(
            _prompts(folder, size), MIXTURE, Path(folder, "answers"),
            processes=ACTORS, at_once=AT_ONCE,
        )  # fmt: skip
        assert answers.count() == size
    ray.shutdown()
    return time.perf_counter() - started


def tables(result: dict[str, Any]) -> list[Table]:
    """Seconds, CPU seconds, and how many times faster the actors are."""
    one = Table(
        f"Prompts in one process, {ACTORS * AT_ONCE} at once: seconds, and CPU seconds",
        ["abatch", "answer_prompts", "ratio", "abatch: CPU", "answer_prompts: CPU", "CPU ratio"],
    )
    many = Table(
        f"Prompts over {ACTORS} actors of {AT_ONCE} at once, Ray's start included: seconds",
        ["one process", "Ray", "one process : Ray"],
    )
    for size, times in result["times"].items():
        cells = []
        for kind in ("seconds", "cpu"):
            base, ours = times["abatch"][kind], times["one process"][kind]
            cells += [base, ours, ours / base]
        one.add(f"{size} prompts", cells)
        here, ray = times["one process"]["seconds"], times["Ray"]["seconds"]
        many.add(f"{size} prompts", [here, ray, here / ray])
    return [one, many]


def plot(result: dict[str, Any], axes: Axes) -> None:
    """Seconds by the number of prompts."""
    sizes = [int(size) for size in result["times"]]
    for name in ("abatch", "one process", "Ray"):
        seconds = [by[name]["seconds"] for by in result["times"].values()]
        axes.plot(sizes, seconds, "o-", label=name)
    axes.set(
        xscale="log", yscale="log", xlabel="prompts", ylabel="seconds",
        title="One process, and two actors of Ray Data",
    )  # fmt: skip
    axes.legend()
