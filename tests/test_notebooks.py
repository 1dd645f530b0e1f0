"""The notebooks run top to bottom, and are kept with outputs that could be anybody's."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import nbformat
import pytest

from tests.guides import GUIDES, NOTEBOOKS, README
from tests.notebooks import run
from tests.recording import FILE as RECORDING

DATA = Path(__file__).parents[2] / "shared" / "data"
records = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs the recorded public data in ../shared/data"
)
PATHS = [
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
    for path in NOTEBOOKS
]
PRIVATE = {
    "a path": r"(?<![\w:/.~-])/(?:tmp|home|root|work|var|usr|opt|mnt|Users|private)/"
    r"|\b[A-Z]:\\|site-packages|ipykernel_\d+|~/",
    "a key": r"\b(?:sk|pk|rk|tgp|gsk|hf|xai|lsv2)[-_][A-Za-z0-9]{6}|\bAIza\w{6}|Bearer [\w-]{8}",
    "an address": r"\b(?!127\.0\.0\.1\b|0\.0\.0\.0\b)\d{1,3}(?:\.\d{1,3}){3}\b",
}


def written(path: Path) -> str:
    """All that a guide says, in sources and in outputs, but for pictures of pixels."""
    if path.suffix != ".ipynb":
        return path.read_text()
    parts: list[str] = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(cell.source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            parts += [str(v) for kind, v in data.items() if not kind.startswith("image/png")]
            parts += [output.get("text", ""), *output.get("traceback", ())]
    return "\n".join(parts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", PATHS)
async def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOA_EVAL_DATA", str(DATA))
    notebook = await run(path)
    assert [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_with_its_outputs(path: Path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds
    assert "error" not in kinds
    for cell in cells:  # what prints or plots has its output
        if re.search(r"^\s*(?:print|display)\(|plt\.show\(\)", cell.source, re.MULTILINE):
            assert cell.outputs, cell.source


@pytest.mark.parametrize(
    "path", [README, RECORDING, *GUIDES, *NOTEBOOKS], ids=lambda path: path.name
)
def test_it_names_no_machine(path: Path):
    text = written(path)
    for what, pattern in PRIVATE.items():
        assert not (found := re.search(pattern, text)), f"{what}: {found}"
    host = socket.gethostname()
    if re.search(r"[\d.-]", host):  # else it may be a usual word
        assert host not in text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("/home/me/x.py", "a path"),
        ("File /tmp/ipykernel_12/3.py", "a path"),
        (r"C:\Users\me", "a path"),
        ("~/data", "a path"),
        ("lib/python3.11/site-packages/x", "a path"),
        ("sk-abcdef123456", "a key"),
        ("AIzaSyabcdef", "a key"),
        ("http://10.0.0.7:8000", "an address"),
        ("http://127.0.0.1:2024/moa", None),
        ("https://example.org/home/me", None),
        ("result_dirs/gsm and/or ../data", None),
    ],
)
def test_what_names_a_machine(text: str, what: str | None):
    found = [name for name, pattern in PRIVATE.items() if re.search(pattern, text)]
    assert what in found if what else not found
