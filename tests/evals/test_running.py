from __future__ import annotations

import asyncio
import io

import pytest

from moa_graph.evals.files import EvalFailed, Journal
from moa_graph.evals.workers import do_all


async def test_at_most_so_many_run_at_once_and_all_are_done(tmp_path):
    running = most = 0

    async def do(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return {"answer": item}

    with Journal(tmp_path / "j", {}) as journal:
        items = {str(i): i for i in range(50)}
        await do_all(items, do, journal, title="t", at_once=4, quiet=True)
        assert {key: row["answer"] for key, row in journal.done.items()} == items
    assert most == 4


async def test_failures_are_recorded_and_only_they_are_done_again(tmp_path):
    asked = []

    async def do(item):
        asked.append(item)
        if item % 2 and len(asked) <= 10:
            raise ValueError(f"no {item}")
        return {"answer": item}

    items = {str(i): i for i in range(10)}
    for _ in range(2):
        with Journal(tmp_path / "j", {}) as journal:
            await do_all(items, do, journal, title="t", at_once=1, quiet=True)
            failed = dict(journal.failed)
        if len(asked) == 10:
            assert failed["3"]["error"] == "ValueError: no 3"
    assert not failed
    assert asked == [*range(10), 1, 3, 5, 7, 9]


async def test_hopeless_run_is_stopped_before_everything_is_tried(tmp_path):
    async def do(item):
        raise ValueError("the provider refused")

    with Journal(tmp_path / "j", {}) as journal:
        with pytest.raises(EvalFailed, match=r"the first 10 items all failed.*refused"):
            await do_all(
                {str(i): i for i in range(99)}, do, journal, title="t", at_once=1, quiet=True
            )
        assert len(journal.failed) == 10


async def test_run_that_once_succeeded_is_not_hopeless(tmp_path):
    async def do(item):
        if item:
            raise ValueError("no")
        return {}

    with Journal(tmp_path / "j", {}) as journal:
        await do_all({str(i): i for i in range(30)}, do, journal, title="t", at_once=1, quiet=True)
        assert len(journal.failed) == 29


async def test_progress_tells_rate_cost_of_earlier_runs_and_time_left(tmp_path):
    async def do(item):
        return {"cost": 0.25}

    items = {str(i): i for i in range(4)}
    with Journal(tmp_path / "j", {}) as journal:
        await do_all(dict(list(items.items())[:2]), do, journal, title="t", quiet=True)
        shown = io.StringIO()
        await do_all(items, do, journal, title="alpha", progress=shown)
    last = shown.getvalue().split("\r")[-1]
    assert "alpha: 100%" in last
    assert "4/4" in last
    assert "it/s" in last
    assert "<00:00" in last
    assert "$1" in last
