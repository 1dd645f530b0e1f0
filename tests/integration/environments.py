"""What would not get along with what the tests need: each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

_FOLDER = Path(__file__).parent / ".environments"


def environment(name: str, *packages: str) -> Path:
    """The folder of programs of an environment with these packages, installed on first use."""
    folder = _FOLDER / name
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        python = folder / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "uv"], check=True)
        uv = [folder / "bin" / "uv", "pip", "install", "--quiet", "--python", python]
        # pip can take minutes to find versions that agree; uv does not read pip's settings.
        if subprocess.run([*uv, *packages], check=False).returncode:
            subprocess.run([*pip, *packages], check=True)
        (folder / "done").touch()
    return folder / "bin"


def node_packages(name: str, package: Path) -> Path:
    """The folder with the npm packages of a `package.json`, installed on first use."""
    folder = _FOLDER / name
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(package, folder)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(npm, cwd=folder, check=True)
        (folder / "done").touch()
    return folder
