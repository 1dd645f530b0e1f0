"""The table of clients and features, as Markdown: `python -m tests.integration.clients [WORD …]`.

With words, only clients whose name or script has one of them are driven.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.fake_server import FakeServer
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.driver import NOT_OFFERED, drive, guarded_server, markdown


def main(*words: str) -> int:
    """Print the table, and return the exit code: whether anything does not work."""
    chosen = [
        client
        for client in CLIENTS
        if not words or any(word in f"{client.name} {client.script}" for word in words)
    ]
    with (
        FakeServer() as models,
        tempfile.TemporaryDirectory() as folder,
        guarded_server(models, Path(folder)) as server,
    ):
        table = asyncio.run(drive(chosen, models, server.url))
    sys.stdout.write(f"{markdown(table)}\n")
    return int(any(cell not in ("", NOT_OFFERED) for _, row in table for cell in row.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
