"""What would not get along with what the tests need: each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_FOLDER = Path(__file__).parent / ".environments"


@contextmanager
def _first_use(name: str) -> Iterator[tuple[Path, bool]]:
    """A folder, and whether it is to be filled; other processes wait meanwhile."""
    folder = _FOLDER / name
    _FOLDER.mkdir(exist_ok=True)
    with FileLock(_FOLDER / f"{name}.lock"):
        empty = not (folder / "done").exists()
        if empty:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, empty
        (folder / "done").touch()


def environment(name: str, *packages: str) -> Path:
    """The folder of programs of an environment with these packages, installed on first use."""
    with _first_use(name) as (folder, empty):
        if empty:
            venv.create(folder)
            python = folder / "bin" / "python"
            uv = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet"]
            # uv takes seconds where pip takes minutes, but it does not read pip's settings.
            if subprocess.run([*uv, "--python", python, *packages], check=False).returncode:
                pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
                subprocess.run([*pip, *packages], check=True)
    return folder / "bin"


def node_packages(name: str, package: Path) -> Path:
    """The folder with the npm packages of a `package.json`, installed on first use."""
    with _first_use(name) as (folder, empty):
        if empty:
            shutil.copy(package, folder)
            npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(npm, cwd=folder, check=True)
    return folder
