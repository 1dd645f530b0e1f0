"""The notebooks run top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DATA = Path(__file__).parents[2] / "shared" / "data"
records = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs the recorded public data in ../shared/data"
)
NOTEBOOKS = [
    pytest.param(
        path,
        id=path.stem,
        marks=[
            pytest.mark.local
            if '"local:' in path.read_text().replace("\\", "")
            else pytest.mark.full,
            *([records] if "MOA_EVAL_DATA" in path.read_text() else []),
        ],
    )
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS)
async def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOA_EVAL_DATA", str(DATA))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3")
    await client.async_execute(cwd=str(path.parent))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
