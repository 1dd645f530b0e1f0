"""Programs that would not get along with what the tests need: each in an environment of its own."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

_FOLDER = Path(__file__).parent / ".environments"


def environment(name: str, *packages: str) -> Path:
    """The folder of programs of an environment with these packages, installed on first use."""
    folder = _FOLDER / name
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *packages], check=True)
        (folder / "done").touch()
    return folder / "bin"
