"""Agents whose process is killed: what a resumed run asks again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fake_server import FakeServer, eventually
from tests.integration.agent_runner import run

ROOT = Path(__file__).parents[2]

modes = pytest.mark.parametrize("mode", ["sync", pytest.param("async", marks=pytest.mark.full)])


async def killed_when(condition: Callable[[], object], order: dict[str, Any]) -> None:
    """Run an agent in a process, and kill that once the condition holds and is stored."""
    command = [sys.executable, "-m", "tests.integration.agent_runner", json.dumps(order)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    await eventually(condition, 60)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.5)  # what was answered is stored by now
    assert process.returncode is None, "the run ended before it was killed"
    process.kill()
    await process.wait()


def asked(server: FakeServer) -> Counter[str]:
    return Counter(server.labels())


@modes
@pytest.mark.parametrize("face", ["model", "model, cache", "middleware", "review"])
async def test_killed_in_the_tool_loop_no_proposer_is_asked_again(server, tmp_path, face, mode):
    act = "act?steps=3&slow_third=30"
    order = {"url": server.url, "folder": str(tmp_path), "face": face, "mode": mode, "act": act}
    await killed_when(lambda: asked(server)["act"] == 3, order)
    before = asked(server)
    state = await run(order, None)
    assert state["messages"][-1].text.startswith("act: ")
    again = asked(server) - before
    if face == "review":  # it is reviewed after the tools
        assert again == {"act": 3, "a": 1, "b": 1, "c": 1}
    else:
        assert before == {"a": 1, "b": 1, "c": 1, "act": 3}
        assert again == {"act": 2}


@modes
@pytest.mark.parametrize("face", ["model, cache", "middleware", "review"])
async def test_killed_before_the_first_answer_no_proposer_is_asked_again(
    server, tmp_path, face, mode
):
    number = 2 if face == "review" else 1
    act = f"act?steps=0&slow_{ {1: 'first', 2: 'second'}[number] }=30"
    order = {"url": server.url, "folder": str(tmp_path), "face": face, "mode": mode, "act": act}
    await killed_when(lambda: asked(server)["act"] == number, order)
    before = asked(server)
    assert before["c"] == 1
    state = await run(order, None)
    assert state["messages"][-1].text.startswith("act: ")
    assert (asked(server) - before).keys() == {"act"}


@modes
@pytest.mark.parametrize("face", ["model, cache", "middleware", "review"])
async def test_killed_in_the_panel_only_the_others_are_asked(server, tmp_path, face, mode):
    slow = {"act": "act?steps=0", "slow": "c?slow_first=30"}
    order = {"url": server.url, "folder": str(tmp_path), "face": face, "mode": mode, **slow}
    await killed_when(
        lambda: (
            all(call.ended for call in server.of("a") + server.of("b"))
            and asked(server).keys() >= {"a", "b", "c"}
        ),
        order,
    )
    before = asked(server)
    state = await run(order, None)
    assert state["messages"][-1].text.startswith("act: ")
    again = asked(server) - before
    assert {label for label in again if label != "act"} == {"c"}
