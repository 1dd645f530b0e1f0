"""Hundreds of prompts over Ray's actors, killed at half and run again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.guides import blocks
from tests.integration.langgraph_server import REPOSITORY

pytestmark = pytest.mark.services

PROMPTS, FAILING = 500, 77
ACTORS, AT_ONCE = 2, 16
DRIVER = f"""
import json, sys, ray
from moa_graph.batch import answer_prompts
from moa_graph.presets import Configuration

ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False)
mixture = Configuration(proposers=["openai:a?latency=0.02", "openai:b"], aggregator="openai:agg")
prompts, folder = sys.argv[1:]
answers = answer_prompts(prompts, mixture, folder, processes={ACTORS}, at_once={AT_ONCE})
print(json.dumps(answers.take_all()))
"""


@pytest.fixture
def prompts(tmp_path) -> Path:
    file = tmp_path / "prompts.jsonl"
    rows = [{"id": n, "prompt": f"question {n}"} for n in range(PROMPTS)]
    rows[FAILING]["prompt"] = ""
    rows[1]["prompt"] = rows[0]["prompt"]  # the same question twice
    rows += [{"id": "twice", "prompt": "question twice"}] * 2  # the same row twice
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def start(server, prompts: Path, folder: Path) -> subprocess.Popen[str]:
    models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test-0123456789"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(prompts), str(folder)],
        cwd=REPOSITORY, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | models | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def test_killed_at_half_it_goes_on_and_pays_for_nothing_twice(server, prompts, tmp_path):
    folder = tmp_path / "answers"
    first = start(server, prompts, folder)
    ends = time.monotonic() + 180
    while len(server.of("agg")) < PROMPTS / 2:
        assert first.poll() is None, first.communicate()[1][-3000:]
        assert time.monotonic() < ends
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    time.sleep(1)
    before = Counter(call.messages[-1]["content"] for call in server.of("agg"))
    written = sum(part.read_bytes().count(b"\n") for part in folder.glob("*.jsonl"))
    assert written >= PROMPTS / 2 - ACTORS * AT_ONCE - 1
    assert sum(before.values()) < PROMPTS

    second = start(server, prompts, folder)
    output, errors = second.communicate(timeout=480)
    assert second.returncode == 0, errors[-3000:]
    rows = json.loads(output.splitlines()[-1])
    assert Counter(row["id"] for row in rows) == {**dict.fromkeys(range(PROMPTS), 1), "twice": 2}
    for row in rows:
        if row["id"] == FAILING:
            assert row["answer"] is None
            assert "blank" in row["error"]
        else:
            assert row["error"] is None
            assert row["answer"] == f"agg: {row['prompt']}"
            assert [p["proposer"] for p in row["proposals"]] == ["a?latency=0.02", "b"]
            assert row["usage"]["total_tokens"] > 0
    for label in ("a", "agg"):
        asked = Counter(call.messages[-1]["content"] for call in server.of(label))
        asked -= Counter({"question 0": 1, "question twice": 1})
        assert len(asked) == PROMPTS - 1  # of two the question is the same, one has none, one more
        twice = [question for question, times in asked.items() if times > 1]
        assert len(twice) <= ACTORS * AT_ONCE, "more was paid for again than was in flight"
        assert max(asked.values()) <= 2


def test_the_code_of_the_guide_answers_a_file(server, tmp_path):
    (block,) = blocks("python", REPOSITORY / "notebooks" / "batch.md")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    models = {"TOGETHER_API_BASE": server.url, "TOGETHER_API_KEY": "tgp-0123456789"}
    run = subprocess.run(
        [sys.executable, "-c", block],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env=os.environ | models | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert re.search(r"'answer': '[\w./-]+: (one|two)'", run.stdout)
