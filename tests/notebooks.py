"""Runs the notebooks and saves their outputs.

python -m tests.notebooks        # all
python -m tests.notebooks 01 05  # some
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.guides import NOTEBOOKS


async def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of its cells.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    await client.async_execute(cwd=str(path.parent))
    return notebook


async def main(chosen: list[str]) -> None:
    """Run and save the notebooks whose names begin with a chosen text."""
    for path in NOTEBOOKS:
        if not chosen or path.name.startswith(tuple(chosen)):
            nbformat.write(await run(path), path)
            print(path.name)  # noqa: T201


if __name__ == "__main__":
    import asyncio

    asyncio.run(main(sys.argv[1:]))
