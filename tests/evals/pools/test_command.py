"""The command `moa eval pool`, on records and on models that are asked."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app

N = 60
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def number_in(call):
    return int(re.findall(r"number (\d+)", call.messages[-1]["content"])[0])


def wrong_at(*places):
    """Answer with the number after, but not where the number is one of these modulo 10."""

    def answer(call):
        number = number_in(call)
        right = number % 10 not in places
        return f"{call.label} says {number + 1 if right else number - len(places)}."

    return answer


@pytest.fixture
def moa(together, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What follows number {i}?", "answer": str(i + 1)} for i in range(N)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    together.answers |= {
        "a": wrong_at(0, 1),
        "b": wrong_at(2, 3, 4),
        "c": wrong_at(5, 6, 7),
        "writer": lambda call: "1" if "number of the best" in call.system else "It is 0.",
    }

    def run(*arguments: str):
        return CliRunner().invoke(app, [*map(str, arguments)])

    return run


ASK = ("eval", "pool", "together:a", "together:b", "together:c", "-d", "asked.jsonl")
NUMBERS = ("--scorer", "number", "--out", "o")


def test_models_are_asked_and_the_best_mixture_is_written(moa, together, tmp_path):
    result = moa(*ASK, *NUMBERS, "--writer", "together:writer", "--json")
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["sets"]
    told = found["recommendation"]
    assert told["mix"]
    assert sorted(told["members"]) == ["together:a", "together:b", "together:c"]
    assert told["strategy"] == "vote"
    assert told["gain"]["value"] == pytest.approx(0.2)
    best = next(row for row in found["pools"] if row["size"] == 3)
    assert best["accuracy"]["vote"]["value"] == 1
    assert best["accuracy"]["synthesis"]["value"] == 0
    assert best["accuracy"]["rank"]["value"] == pytest.approx(0.8)
    assert found["samples"][0]["accuracy"]["value"] == pytest.approx(0.8)
    for name in ("pool.toml", "pool.md", "pool.json", "pool.png"):
        assert (tmp_path / "o" / name).stat().st_size > 100
    assert Counter(call.label for call in together.calls)["b"] == N

    before = len(together.calls)
    again = moa(*ASK, *NUMBERS, "--writer", "together:writer", "--json")
    assert json.loads(again.stdout) == json.loads(result.stdout)
    assert len(together.calls) == before

    answer = moa("ask", "What follows number 5?", "--config", "o/pool.toml", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["answer"] == "a says 6."


def test_without_a_gain_the_best_model_alone_is_written(moa, together):
    together.answers |= {"b": wrong_at(*range(6)), "c": wrong_at(*range(7))}
    result = moa(*ASK, *NUMBERS, "--no-samples")
    assert result.exit_code == 0, result.stderr
    assert "**Do not mix: " in result.stdout
    asked = len(together.of("a"))
    assert asked == N
    answer = moa("ask", "What follows number 5?", "--config", "o/pool.toml", "--json")
    assert json.loads(answer.stdout)["answer"] == "a says 6."
    assert len(together.of("a")) == asked + 1
    assert len(together.of("b")) == N


def test_records_are_studied_without_a_call(moa, together, data):
    result = moa(
        *("eval", "pool", data / "zero_eval/math-l5", "--out", "o"),
        *("--models", "Qwen2-7B-Instruct,gemma-2-9b-it,Yi-1.5-9B-Chat"),
        *("--served", "Qwen2-7B-Instruct=together:a", "--provider", "together", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["sets"]
    assert found["n"] == 721
    assert all(row["accuracy"]["central"] for row in found["pools"])
    assert all(row["accuracy"]["rank"] is None for row in found["pools"])
    assert found["recommendation"]["tokens"] > 1
    assert not together.calls
    answer = moa("ask", "What follows number 5?", "--config", "o/pool.toml", "--json")
    assert answer.exit_code == 0, answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("together:a", "together:b"), "There is no file 'together:a'. Give recorded answers"),
        (("together:a", "-d", "asked.jsonl", "--scorer", "number"), "needs at least two models"),
        (
            ("together:a", "together:b", "-d", "asked.jsonl", "--size", 19, "--scorer", "number"),
            "19 different questions",
        ),
        (("together:a", "together:b", "-d", "asked.jsonl"), "has no scorer"),
        (("together:a", "together:a", "-d", "asked.jsonl"), "Two configurations are named"),
        (("a", "b", "-d", "asked.jsonl"), "has no provider"),
        ((".", "together:a"), "Give recorded answers or models, not both"),
        ((".", "-d", "asked.jsonl"), "are for models to ask"),
        ((".",), "has neither questions.jsonl nor results of ZeroEval"),
        (("asked.jsonl",), "must be a folder of recorded answers, or a log of Inspect"),
        ((".", "--served", "x"), "--served must be NAME=provider:model"),
        (("together:a", "together:b", "-d", "nowhere.json"), "There is no file nowhere.json"),
    ],
)
def test_what_is_wrong_is_told_before_a_call(moa, together, arguments, said):
    result = moa("eval", "pool", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not together.calls


def test_questions_that_a_model_did_not_answer_are_left_out_and_asked_again(moa, together):
    failing = "together:b?status=400&times=5"
    arguments = ("eval", "pool", "together:a", failing, "-d", "asked.jsonl", *NUMBERS)
    first = moa(*arguments, "--no-samples")
    assert first.exit_code == 0, first.stderr
    assert "5 of 60 questions are left out" in first.stderr
    assert "55 questions" in first.stdout
    second = moa(*arguments, "--no-samples")
    assert "60 questions" in second.stdout
    assert len(together.of("a")) == N


def test_rankings_are_kept_when_more_questions_are_answered(moa, together):
    failing = "together:b?status=400&times=5"
    arguments = ("eval", "pool", "together:a", failing, "-d", "asked.jsonl", *NUMBERS)
    writing = ("--no-samples", "--writer", "together:writer")
    first = moa(*arguments, *writing)
    assert first.exit_code == 0, first.stderr
    assert len(together.of("writer")) == 2 * (N - 5)
    second = moa(*arguments, *writing)
    assert second.exit_code == 0, second.stderr
    assert len(together.of("writer")) == 2 * N


@pytest.mark.full
@pytest.mark.parametrize("what", ["pool", "compare"])
def test_killed_at_any_moment_only_what_was_in_flight_is_paid_twice(moa, together, tmp_path, what):
    slow = [f"together:{name}?latency=0.01" for name in "abc"]
    writer = "together:writer?latency=0.01"
    (tmp_path / "mix.toml").write_text(f"proposers = {json.dumps(slow)}\naggregator = {writer!r}")
    sources = [*slow, "--writer", writer] if what == "pool" else ["mix.toml"]
    command = [
        *(sys.executable, "-m", "moa_graph", "eval", what, *sources, "-d", "asked.jsonl"),
        *(*NUMBERS, "--at-once", "2"),
    ]
    rng = random.Random(3)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            command,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        before, until = len(together.calls), rng.randint(5, 90)
        while process.poll() is None:
            if len(together.calls) >= before + until:
                time.sleep(rng.random() * 0.03)
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
        if process.returncode == 0:
            break
    assert kills >= 3
    end = subprocess.run(command, capture_output=True, check=False)
    assert end.returncode == 0, end.stderr
    times = Counter((call.model, json.dumps(call.messages)) for call in together.calls)
    # The best model is asked the same question again for its self-consistency.
    more = 2
    if what == "compare":
        report = json.loads((tmp_path / "o" / "report.json").read_text())
        more = 1 + max(
            int(found[1])
            for name in report["targets"]
            if (found := re.search(r", (\d+) ans", name))
        )
    allowed = {"a?latency=0.01": 1 + more}
    twice = sum(max(0, n - allowed.get(model, 1)) for (model, _), n in times.items())
    # In flight are two questions, of a mixture with all of its proposers.
    assert twice <= 2 * kills * (1 if what == "pool" else max(3, more))
