"""What importing and installing the package does, and does not."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import moa_graph

ROOT = Path(__file__).parent.parent

IMPORT = """
import os, sys
for name in list(os.environ):
    if name.endswith("_API_KEY"):
        del os.environ[name]
import langgraph.graph, langchain_core.language_models  # urllib3 tries a socket at import
import httpx  # imports rich where it finds it
before = set(sys.modules)
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
import moa_graph
sdks = {"openai", "langchain_openai", "langchain_together", "together", "anthropic", "xllamacpp",
        "pooch", "typer", "rich"}
print(sorted(sdks & (set(sys.modules) - before)), opened)
"""


def test_import_loads_no_provider_opens_no_socket_and_needs_no_key():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert result.stdout == "[] []\n", result.stderr


def test_public_names_are_the_designs():
    assert set(moa_graph.__all__) == {
        "AggregationFailed",
        "AggregationRefused",
        "CallPolicy",
        "ChatMoA",
        "Layer",
        "MoAContext",
        "MoAError",
        "MoAGraph",
        "MoAMiddleware",
        "MoAState",
        "NotEnoughProposals",
        "Proposal",
        "ProposalCache",
        "ProposalStream",
        "Proposer",
        "References",
        "RunLimits",
        "consult_tool",
        "create_moa",
        "merge_proposals",
    }
    assert dir(moa_graph) == sorted(moa_graph.__all__)
    assert all(getattr(moa_graph, name).__doc__ for name in moa_graph.__all__)


# --- the house ---------------------------------------------------------------------------------

PACKAGE = ROOT / "moa_graph"
_LINES, _BODY, _METHODS, _MODULES = 400, 60, 20, 14


def test_imports_point_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_files_functions_and_classes_are_small():
    assert len(list(PACKAGE.glob("*.py"))) <= _MODULES
    page = (PACKAGE / "server" / "page").iterdir()
    too_long = [str(path) for path in page if len(path.read_text().splitlines()) > _LINES]
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if len(text.splitlines()) > _LINES:
            too_long.append(f"{path}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and (lines := body[-1].end_lineno - body[0].lineno + 1) > _BODY:
                    too_long.append(f"{path}: {node.name} has {lines} lines")
            elif isinstance(node, ast.ClassDef):
                methods = [
                    n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                if len(methods) > _METHODS:
                    too_long.append(f"{path}: {node.name} has {len(methods)} methods")
    assert not too_long, "\n".join(too_long)


def test_the_walk_in_the_contributors_guide_is_true():
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    walk = re.findall(r"^\d\. `(moa_graph/[\w/]+\.py)`", guide, re.MULTILINE)
    assert 2 <= len(walk) <= 7
    imported = {}
    for name in walk:
        tree = ast.parse((ROOT / name).read_text())
        first = (ast.get_docstring(tree) or "").splitlines()[0]
        assert first.endswith("."), name
        imported[name] = {
            node.module.replace(".", "/") + ".py"
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module
        }
    for i, name in enumerate(walk):
        assert imported[name].isdisjoint(walk[:i]), f"{name} imports what comes before it"
        if i:
            assert any(name in imported[earlier] for earlier in walk[:i]), f"nobody leads to {name}"
    for name in re.findall(r"`((?:[\w]+/)+)` \|", guide):
        assert (PACKAGE / name).is_dir()


def test_a_benchmarks_worker_starts_where_only_its_contender_is_installed():
    worker = ROOT / "tests" / "benchmarks" / "worker.py"
    imported = {
        name.partition(".")[0]
        for node in ast.parse(worker.read_text()).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported
    assert imported <= sys.stdlib_module_names
