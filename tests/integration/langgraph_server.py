"""`langgraph dev` on a copy of what a clone has, as a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parent.parent.parent
STARTS_WITHIN = 120  # seconds; on a busy machine, and well above what it should take


@dataclass
class LangGraphServer:
    """A running server."""

    url: str
    seconds: float
    """From the command to its first answer."""
    log_file: Path

    @property
    def log(self) -> str:
        """What it has written so far, without colours."""
        return re.sub(r"\x1b\[[\d;]*m", "", self.log_file.read_text())


@contextmanager
def langgraph_dev(folder: Path, *options: str, **environment: str) -> Iterator[LangGraphServer]:
    """Start the server in a folder, and stop it at the end.

    Args:
        folder: An empty one.
        *options: Of `langgraph dev`.
        **environment: Variables beside the common ones; no key is among those.
    """
    shutil.copy(REPOSITORY / "langgraph.json", folder)
    shutil.copytree(REPOSITORY / "moa_graph", folder / "moa_graph")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    command = [
        str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload",
        "--port", str(port), *options,
    ]  # fmt: skip
    log_file = folder / "server.log"
    started = time.monotonic()
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**kept, "LANGGRAPH_CLI_NO_ANALYTICS": "1", "NO_COLOR": "1", **environment},
        )  # fmt: skip
    try:
        server = LangGraphServer(f"http://127.0.0.1:{port}", 0.0, log_file)
        while True:
            try:
                httpx.get(f"{server.url}/ok", timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, server.log
                assert time.monotonic() - started < STARTS_WITHIN, server.log
                time.sleep(0.1)
        server.seconds = time.monotonic() - started
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
