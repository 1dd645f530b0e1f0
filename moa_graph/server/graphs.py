"""The graphs that `langgraph.json` names. Building them needs no key; running them does."""

from moa_graph.presets import PRESETS

moa = PRESETS["moa"].create()
together = PRESETS["together"].create()
local = PRESETS["local"].create()
