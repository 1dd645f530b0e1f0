"""How long `import moa_graph` takes, as a ratio to what it stands on; run it as a script.

Each import is timed in a fresh interpreter, the two in turn, so that a busy machine slows both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
BASE = "import langgraph.graph, langchain_core.language_models"
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def _seconds(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    pairs = [(_seconds(BASE), _seconds("import moa_graph")) for _ in range(ROUNDS)]
    base, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(ours / base for base, ours in pairs)
    print(f"{BASE}: {base:.3f} s\nimport moa_graph: {ours:.3f} s\nratio: {ratio:.3f}")


if __name__ == "__main__":
    main()
