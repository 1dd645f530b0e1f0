"""The graphs that `langgraph.json` names. Building them needs no key; running them does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from moa_graph.graph import MoAGraph
from moa_graph.server.assistants import mixture, preset

__all__ = [
    "local",
    "local_tiny",
    "mixture",
    "moa",
    "moa_50_lines",
    "moa_gpt4o",
    "moa_lite",
    "self_moa",
    "together",
]


def _factory(name: str) -> Callable[[], MoAGraph]:
    with suppress(ValueError):
        preset(name)  # built now: that reads certificates from files, which would block a run

    # A function, so that a preset that the operator does not allow refuses its runs and no other.
    def graph() -> MoAGraph:
        return preset(name)

    return graph


moa = _factory("moa")
moa_gpt4o = _factory("moa-gpt4o")
moa_lite = _factory("moa-lite")
moa_50_lines = _factory("moa-50-lines")
self_moa = _factory("self-moa")
together = _factory("together")
local = _factory("local")
local_tiny = _factory("local-tiny")
