"""The notebooks run top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = [
    pytest.param(
        path,
        id=path.stem,
        marks=[pytest.mark.local] if "local:" in path.read_text() else [],
    )
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS)
async def test_notebook_runs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    await client.async_execute(cwd=str(path.parent))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
