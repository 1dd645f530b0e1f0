"""What the README and the guides show runs, and their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from typer.main import get_command

from moa_graph.cli.app import app
from moa_graph.presets import load_preset
from tests.guides import (
    BLOCK,
    CONTRIBUTING,
    DEPLOYMENT,
    GUIDES,
    NOTEBOOKS,
    README,
    ROOT,
    SERVER,
    bash_block,
    blocks,
)

TEXTS = {
    path: path.read_text()
    for path in (README, CONTRIBUTING, DEPLOYMENT, *GUIDES)
    if path.name != "reference.md"  # generated
} | {
    path: "\n\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    for path in NOTEBOOKS
}
"""What people read, by file."""
PATHS = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in TEXTS]
COMMANDS = ("moa", "pip", "python", "pytest", "langgraph", "docker", "curl", "bash", "apt-get")


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 250


def python_blocks(path: Path) -> list[str]:
    """The Python of a text that needs no server; those with one are run by tests of servers."""
    found = [code for language, code in BLOCK.findall(TEXTS[path]) if language == "python"]
    return [block for block in found if SERVER not in block and "prompts.jsonl" not in block]


WITH_PYTHON = [path for path in TEXTS if path != CONTRIBUTING and python_blocks(path)]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.stem)
def test_every_python_block_runs(path, server, monkeypatch, capsys, tmp_path):
    here = python_blocks(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    namespace: dict = {}
    for block in here:
        exec(compile(block, str(path), "exec"), namespace)
    if path == README:
        printed = capsys.readouterr().out
        assert "DeepSeek-V4-Pro: What are 3 fun things to do in SF?" in printed
        assert "What is on tonight?" in printed
        assert len(here) >= 6


def test_the_configuration_files_are_ones(tmp_path):
    whole, layers = blocks("toml", ROOT / "notebooks" / "command_line.md")
    (tmp_path / "mine.toml").write_text(whole)
    graph = load_preset(tmp_path / "mine.toml").create()
    assert "layer_2_mine" in graph.nodes
    (tmp_path / "layers.toml").write_text(layers)
    assert "select_1" in load_preset(tmp_path / "layers.toml").create().nodes


# --- commands ---------------------------------------------------------------------------------


def test_every_command_of_the_readme_is_run():
    """Each block says who runs it, and that one takes it from the README."""
    text = README.read_text()
    shells = [
        m.start()
        for m in re.finditer(r"^```(?!python|json|toml|text|mermaid)\w+$", text, re.MULTILINE)
    ]
    marks = list(re.finditer(r"<!-- (run|ci)(?:: (\w+))? -->\n```bash\n", text))
    assert [text.rindex("```", 0, mark.end() - 1) for mark in marks] == shells

    tests = "\n".join(path.read_text() for path in _test_files())
    taken = set(re.findall(r'bash_block\("(\w+)"\)', tests))
    assert taken == {mark[2] for mark in marks if mark[1] == "run"}

    ci = [line for mark in marks if mark[1] == "ci" for line in _block_at(text, mark.end())]
    assert _run_by_ci() == [line.partition("  # ")[0].rstrip() for line in ci]

    said = {" ".join(line.split("#")[0].split()) for line in "\n".join(blocks("bash")).splitlines()}
    for inline in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)):
        if inline.split()[0] in COMMANDS and len(inline.split()) > 1:
            assert any(line.startswith(inline) for line in said), f"`{inline}` is run by no test"


def _test_files() -> Iterator[Path]:
    """The Python files of the tests, without those of the environments that tests install."""
    for folder, inner, files in os.walk(ROOT / "tests"):
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _block_at(text: str, start: int) -> list[str]:
    return text[start : text.index("```", start)].splitlines()


def _run_by_ci() -> list[str]:
    """The commands that `.ci/run` takes from the README."""
    script = (ROOT / ".ci" / "run").read_text()
    function = re.search(r"^readme\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)[0]
    found: list[str] = []
    for name in re.findall(r"^readme (\w+)$", script, re.MULTILINE):
        shown = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"eval() {{ :; }}\n{function}\nreadme {name}"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        found += shown.stdout.removeprefix("+ ").splitlines()
    order = README.read_text()
    return sorted(found, key=order.index)


@pytest.fixture
def bash(server, tmp_path, monkeypatch):
    """`bash(block)`: what it prints, with the models of the fake server."""
    monkeypatch.chdir(tmp_path)
    kept = {k: v for k, v in os.environ.items() if k in ("LANG", "PYTHONPATH", "TMPDIR")}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{kept.get('PYTHONPATH', '')}",
        "HOME": str(tmp_path),
        "OPENAI_BASE_URL": server.url,
        "TOGETHER_API_BASE": server.url,
    }

    def run(block: str, **variables: str) -> str:
        shown = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f'pip() {{ python -m tests.guides "$@"; }}\n{block}'],
            cwd=tmp_path, env=environment | variables, check=False, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stdout + shown.stderr
        return shown.stdout

    return run


def test_with_a_key_it_answers_and_writes_a_mixture_of_ones_own(bash, server, tmp_path):
    printed = bash(bash_block("key"))
    assert printed.count("What are 3 fun things to do in SF?") >= 2
    assert "openai:" in (tmp_path / "moa.toml").read_text()
    assert {call.key for call in server.calls} == {"..."}


@pytest.mark.full
def test_evaluations_are_of_ones_own_questions(bash, server, tmp_path):
    questions = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(24)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    printed = bash(bash_block("evals"), TOGETHER_API_KEY="tgp-0123456789")
    assert "24 questions" in printed
    assert (tmp_path / "moa-eval").is_dir()


def _moa_commands(text: str) -> list[str]:
    lines = "\n".join(code for language, code in BLOCK.findall(text) if language == "bash")
    lines = lines.replace("\\\n", " ")
    found = re.findall(r"^(?:\w+=\$\()?(moa [^#|\n]+)", lines, flags=re.MULTILINE)
    return [line.split("  ")[0].split(" &&")[0].rstrip(") ") for line in found]


@pytest.mark.parametrize("path", PATHS)
def test_every_moa_command_has_these_options(path: Path):
    """Parsed as the command does, and not run."""
    for line in _moa_commands(TEXTS[path]):
        words, command = shlex.split(line.split(" < ")[0])[1:], get_command(app)
        while words and words[0] in getattr(command, "commands", ()):
            command = command.commands[words.pop(0)]
        command.make_context("moa", words)


# --- links ------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a text's headings."""
    plain = BLOCK.sub("", text)
    titles = re.findall(r"^#+ (.*)$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PATHS)
def test_every_link_leads_somewhere(path: Path):
    text = BLOCK.sub("", TEXTS[path])
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(TEXTS.get(file) or file.read_text()), link


def test_the_table_of_contents_has_every_guide():
    contents = (ROOT / "notebooks" / "README.md").read_text()
    linked = set(re.findall(r"\]\(([\w.]+)\)", contents))
    assert linked == {path.name for path in (*GUIDES, *NOTEBOOKS)} - {"README.md"}
