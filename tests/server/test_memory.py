"""Memory of the server's process."""

from __future__ import annotations

import asyncio
import gc
import uuid
import weakref

import pytest

from moa_graph.server import memory
from moa_graph.server.metrics import RunMetrics
from tests.fake_server import eventually


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector():
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


async def test_garbage_of_runs_is_freed_after_the_last_one(monkeypatch):
    monkeypatch.setattr(memory, "_POLL", 0.01)
    metrics = RunMetrics("moa")
    async with memory.collected():
        gc.disable()
        try:
            runs = uuid.uuid4(), uuid.uuid4()
            for run in runs:
                metrics.on_chain_start({}, {}, run_id=run)
            left = weakref.ref(_Cycle())
            metrics.on_chain_end({}, run_id=runs[0])
            await asyncio.sleep(0.1)
            assert left() is not None, "a run is in progress"
            metrics.on_chain_end({}, run_id=runs[1])
            await eventually(lambda: left() is None)
        finally:
            gc.enable()
