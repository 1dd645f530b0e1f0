"""The graphs that `langgraph.json` names. Building them needs no key; running them does."""

from moa_graph.presets import PRESETS
from moa_graph.server.assistants import mixture

__all__ = ["local", "mixture", "moa", "moa_lite", "self_moa", "together"]

moa = PRESETS["moa"].create()
moa_lite = PRESETS["moa-lite"].create()
self_moa = PRESETS["self-moa"].create()
together = PRESETS["together"].create()
local = PRESETS["local"].create()
