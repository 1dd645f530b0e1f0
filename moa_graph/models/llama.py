"""Start llama.cpp servers as processes of their own, and end them with this process.

llama.cpp's Python package holds the interpreter's lock while it loads weights. In another process,
models load in parallel with each other and with the imports and threads of this one.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moa_graph.errors import MoAError

_PROGRAM = Path(__file__).with_name("llama_program.py")


class LlamaServer:
    """A process that loads the weights of one model and serves it with OpenAI's protocol."""

    def __init__(self, weights: Path, threads: int, **settings: Any) -> None:
        """Start the process; it loads the weights while this one goes on.

        Args:
            weights: A GGUF file.
            threads: Threads that generate.
            **settings: The other settings of `llama_program.serve`.

        Raises:
            MoAError: If the process cannot be started.
        """
        self.threads = threads
        self._weights = weights
        self._owner = os.getpid()
        self._url: str | None = None
        self._lock = threading.Lock()
        try:
            # -P: the program's folder has modules whose names others use, too. S603: no input.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise MoAError(
                f"llama.cpp could not be started with {sys.executable}: {error}"
            ) from None
        atexit.register(self.stop)
        self._tell({"path": sys.path, "weights": str(weights), "threads": threads, **settings})

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def url(self) -> str:
        """Return the base URL, when the weights are loaded.

        Raises:
            MoAError: If they cannot be loaded. The message has llama.cpp's reason.
        """
        with self._lock:
            if self._url is None:
                self._url = self._when_loaded()
            return self._url

    def stop(self) -> None:
        """End the process. A copy of this process, made by a fork, does not end it."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        self._process.kill()
        self._process.communicate()

    def _tell(self, settings: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(settings).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which `url` reports

    def _when_loaded(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line.endswith(b"\n") else {"error": "its process ended"}
        if "error" in answer:
            self.stop()
            raise MoAError(f"llama.cpp could not load {self._weights}: {answer['error']}.")
        return f"{answer['url']}/v1"
