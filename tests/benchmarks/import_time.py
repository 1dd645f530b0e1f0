"""How long imports take, as a ratio to what they stand on; run it as a script.

Each import is timed in a fresh interpreter, all in turn, so that a busy machine slows all. Times are
those of the CPU. As after an installation, the package is compiled before.
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 15
BASE = "import langgraph.graph, langchain_core.language_models"
OURS = (
    "import moa_graph",  # names are imported when they are used, as in langchain_core
    "from moa_graph import create_moa",
    "from moa_graph import create_moa, ChatMoA",
    "import moa_graph.cli.app",
)
TIMED = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


def _seconds(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    compileall.compile_dir(Path(__file__).parents[2] / "moa_graph", quiet=1)
    rounds = [[_seconds(statement) for statement in (BASE, *OURS)] for _ in range(ROUNDS)]
    for statement, times in zip((BASE, *OURS), zip(*rounds, strict=True), strict=True):
        ratio = statistics.median(ours / one[0] for ours, one in zip(times, rounds, strict=True))
        print(f"{statement}: {statistics.median(times):.3f} s, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
