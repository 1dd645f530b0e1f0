"""Prints tables, and writes `benchmarks.json` and `benchmarks.png`.

python -m tests.benchmarks                       all of them, with the peers
python -m tests.benchmarks tail soak --quick     some, smaller
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.benchmarks import (
    agent,
    batch,
    growth,
    orchestration,
    serving,
    soak,
    staircase,
    start,
    strategies,
    tail,
)
from tests.benchmarks.server import running

BENCHMARKS = {
    "orchestration": orchestration,
    "tail": tail,
    "progressive": staircase,
    "agent": agent,
    "strategies": strategies,
    "growth": growth,
    "soak": soak,
    "serving": serving,
    "batch": batch,
    "start": start,
}
PACKAGES = ["langgraph", "langchain-core", "langchain-openai", "openai"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer shapes and runs")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")

    names = options.names or list(BENCHMARKS)
    results = {"python": platform.python_version(), "versions": {p: version(p) for p in PACKAGES}}
    figure, axes = plt.subplots(len(names), 1, figsize=(8, 4.5 * len(names)), squeeze=False)
    for name, place in zip(names, axes[:, 0], strict=True):
        with running() as server:
            result = BENCHMARKS[name].run(server, quick=options.quick, peers=options.peers)
        for table in BENCHMARKS[name].tables(result):
            print(table, end="\n\n", flush=True)
        BENCHMARKS[name].plot(result, place)
        results[name] = result
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.json").write_text(json.dumps(results, indent=1))
    figure.tight_layout()
    figure.savefig(options.out / "benchmarks.png", dpi=120)


if __name__ == "__main__":
    main()
