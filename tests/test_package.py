"""What importing and installing the package does, and does not."""

from __future__ import annotations

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
        "MoAState",
        "NotEnoughProposals",
        "Proposal",
        "ProposalCache",
        "Proposer",
        "References",
        "RunLimits",
        "create_moa",
        "merge_proposals",
    }
    assert dir(moa_graph) == sorted(moa_graph.__all__)
    assert all(getattr(moa_graph, name).__doc__ for name in moa_graph.__all__)
