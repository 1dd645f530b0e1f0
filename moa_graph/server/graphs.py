"""Graphs for `langgraph.json`. API keys are needed to run them, not to build them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime

from moa_graph.building.compiled import MoAGraph
from moa_graph.server.assistants import for_run, mixture, preset

__all__ = [
    "local",
    "local_tiny",
    "local_vote",
    "mixture",
    "moa",
    "moa_50_lines",
    "moa_gpt4o",
    "moa_lite",
    "self_moa",
    "together",
]


def _factory(name: str) -> Callable[[RunnableConfig, ServerRuntime[Any]], MoAGraph]:
    with suppress(ValueError):
        preset(name)  # build it now: reading certificate files would block a run

    def graph(config: RunnableConfig, runtime: ServerRuntime[Any]) -> MoAGraph:
        return for_run(preset(name, config, runtime), config, runtime)

    return graph


moa = _factory("moa")
moa_gpt4o = _factory("moa-gpt4o")
moa_lite = _factory("moa-lite")
moa_50_lines = _factory("moa-50-lines")
self_moa = _factory("self-moa")
together = _factory("together")
local = _factory("local")
local_tiny = _factory("local-tiny")
local_vote = _factory("local-vote")
