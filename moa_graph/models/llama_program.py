"""Program that loads one local model with llama.cpp and serves it; see `llama.LlamaServer`.

It runs by its path, so it imports nothing of this package: that would take longer than to load a
small model. It reads one line of JSON from standard input, writes one to standard output, and ends
when standard input ends, also if the program that started it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def serve(settings: dict[str, Any]) -> Any:
    """Load the weights; return llama.cpp's server.

    Args:
        settings: `weights` (path), `slots`, `context` (tokens of a slot), `threads`, and `sampling`
            (settings of the sampler).
    """
    import xllamacpp  # noqa: PLC0415 - after `sys.path` was set

    params = xllamacpp.CommonParams()
    params.model.path = settings["weights"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.port = 0  # any free port
    params.verbosity = -1
    # The size of the context is given. To find one that fits the memory takes as long as to load.
    params.fit_params = False
    for setting, value in settings["sampling"].items():
        setattr(params.sampling, setting, value)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    return xllamacpp.Server(params)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that nothing else is written there
    settings = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = settings["path"]
    try:
        server = serve(settings)
        answer = {"url": server.listening_address}
    except Exception as error:  # noqa: BLE001 - llama.cpp has its own errors
        answer = {"error": str(error) or type(error).__name__}
    told.write(json.dumps(answer) + "\n")
    told.flush()
    while "url" in answer and sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # without waiting for answers that nobody reads


if __name__ == "__main__":
    main()
