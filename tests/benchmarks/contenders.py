"""Who is measured beside us, and in which environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = [
    "openai script",
    "openai script, aiohttp",
    "langchain script",
    "langgraph script",
    "langgraph script, aiohttp",
    "moa-graph, model objects",
    "moa-graph",
]
PEERS = {"mixture-llm": "mixture-llm", "conclave-cli": "conclave-cli", "swarms": "swarms"}
ENVIRONMENTS = HERE / ".environments"


def python_of(contender: str) -> str:
    """The interpreter for a contender; a peer's environment is made when it is first needed.

    All use the same version of the provider's SDK: it weighs more than what is measured.
    """
    if contender not in PEERS:
        return sys.executable
    folder = ENVIRONMENTS / PEERS[contender]
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        packages = [PEERS[contender], f"openai=={version('openai')}"]
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *packages],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        (folder / "done").touch()
    return str(python)


def available(peers: bool) -> list[str]:
    """Who can be measured here; says on stderr whose environment could not be made."""
    names = list(OURS)
    for name in PEERS if peers else ():
        try:
            python_of(name)
        except subprocess.CalledProcessError:
            sys.stderr.write(f"{name} cannot be installed here and is left out\n")
        else:
            names.append(name)
    return names


def measure(contender: str, **job: Any) -> dict[str, Any] | None:
    """What one contender took; None (and a line on stderr) if it did not manage the job."""
    job = {"contender": contender, "options": {}, "name": re.sub(r"\W+", "_", contender), **job}
    done = subprocess.run(
        [python_of(contender), str(HERE / "worker.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1],
        timeout=900,
    )
    if done.returncode or not done.stdout:
        sys.stderr.write(f"{contender}: {done.stderr[-400:]}\n")
        return None
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"]:
        sys.stderr.write(
            f"{contender}: {len(result['errors'])} runs failed: {result['errors'][0]}\n"
        )
    return result
