"""Read proposals that were stored before an interrupted run was resumed."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from moa_graph._compat import checkpointer_in
from moa_graph.calling import sync
from moa_graph.nodes.step import Step
from moa_graph.state import (
    Proposal,
)


async def stored_proposals(step: Step) -> list[Proposal]:
    """Return this layer's proposals from the checkpoint of an interrupted run."""
    saver, place = _checkpoint(step)
    if saver is None:
        return []
    checkpoint = await sync.either(lambda: saver.get_tuple(place), lambda: saver.aget_tuple(place))
    return _pending(checkpoint, step.layer)


def _checkpoint(step: Step) -> tuple[BaseCheckpointSaver[Any] | None, RunnableConfig]:
    saver = checkpointer_in(step.config)
    info = step.runtime.execution_info
    if saver is None or info is None:
        return None, {}
    place = {
        "thread_id": info.thread_id,
        "checkpoint_ns": step.namespace,
        "checkpoint_id": info.checkpoint_id,
    }
    return saver, {"configurable": place}


def _pending(checkpoint: CheckpointTuple | None, layer: int) -> list[Proposal]:
    writes = (checkpoint.pending_writes if checkpoint else None) or []
    return [
        proposal
        for _, channel, value in writes
        if channel == "proposals"
        for proposal in value
        if proposal["layer"] == layer
    ]
