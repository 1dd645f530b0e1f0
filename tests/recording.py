"""Records a run of `moa ask` on the local models: `notebooks/images/run.svg`, an animated SVG.

python -m tests.recording

It installs termtosvg, the recorder, in an environment of its own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.guides import ROOT

FILE = ROOT / "notebooks" / "images" / "run.svg"
COMMAND = 'moa ask "What are 3 fun things to do in SF?"'
RECORDER = ("termtosvg==1.1.0", "setuptools<81")  # it imports pkg_resources
OPTIONS = {
    "--screen-geometry": "88x16",
    "--min-frame-duration": "100",  # milliseconds
    "--max-frame-duration": "1500",
    "--loop-delay": "5000",
    "--template": "window_frame",
}


def main() -> None:
    """Record the command, as it is typed, where no key is set."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    typed = f"printf '\\033[32m$\\033[0m %s\\n' {shlex.quote(COMMAND)}; {COMMAND}"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / "bin"
        subprocess.run([programs / "pip", "install", "--quiet", *RECORDER], check=True)
        words = [word for option in OPTIONS.items() for word in option]
        recorder = subprocess.Popen(
            [programs / "termtosvg", FILE, *words, "-c", f"sh -c {shlex.quote(typed)}"],
            cwd=folder, env=kept | {"PATH": path, "COLUMNS": "88"},
            stdin=subprocess.PIPE,  # open until the command ends: its end would stop the recording
        )  # fmt: skip
        if recorder.wait():
            raise SystemExit(recorder.returncode)


if __name__ == "__main__":
    main()
