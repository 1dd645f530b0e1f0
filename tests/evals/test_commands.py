from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app

MIX = 'proposers = ["together:a?latency=0.01", "together:b?latency=0.02"]\naggregator = "together:agg?latency=0.01"\n'
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def moa(together, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mix.toml").write_text(MIX)
    rows = [{"instruction": f"question {i}", "output": f"base {i}"} for i in range(30)]
    (tmp_path / "asked.json").write_text(json.dumps(rows))

    def run(*arguments: str):
        return CliRunner().invoke(app, ["eval", *map(str, arguments)])

    return run


def test_alpaca_writes_outputs_and_says_what_comes_next(moa, together, tmp_path):
    result = moa("alpaca", "mix.toml", "--instructions", "asked.json", "--out", "o")
    assert result.exit_code == 0
    assert "o/model_outputs.json: 30 of 30 answers." in result.stderr
    assert "--judge" in result.stderr
    assert len(json.loads((tmp_path / "o/model_outputs.json").read_text())) == 30
    assert Counter(c.label for c in together.calls) == {"a": 30, "b": 30, "agg": 30}


def test_alpaca_over_recorded_proposals_asks_the_aggregator_alone(moa, together, tmp_path):
    rows = [
        {"instruction": f"question {i}", "output": f"x {i}", "generator": "x"} for i in range(30)
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    asked = ("alpaca", "--preset", "mix.toml", "--instructions", "asked.json")
    result = moa(*asked, "--references", "x.json", "--out", "o")
    assert result.exit_code == 0, result.stderr
    assert set(together.labels()) == {"agg"}
    (tmp_path / "x.json").write_text(json.dumps(rows[1:]))
    result = moa(*asked, "--references", "x.json", "--out", "p")
    assert result.exit_code == 2
    assert "x has no recorded answer to 1 of 30 questions" in result.stderr


def test_alpaca_from_annotations(moa, data):
    path = data / "alpaca_eval/gemma-7b-it.annotations.json.gz"
    result = moa("alpaca", "--from-annotations", path, "--json")
    found = json.loads(result.stdout)
    assert found["win_rate"] == pytest.approx(6.937294379677018, abs=1e-6)
    assert found["length_controlled_winrate"] is None
    result = moa("alpaca", "--from-annotations", path)
    assert "**gemma-7b-it**" in result.stdout
    assert "not available offline" in result.stdout


def test_alpaca_from_annotations_takes_a_part_and_keeps_the_figures(moa, data, tmp_path):
    path = data / "alpaca_eval/gemma-7b-it.annotations.json.gz"
    result = moa("alpaca", "--from-annotations", path, "--limit", 50, "--out", "o", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["n_total"] == 50
    assert json.loads((tmp_path / "o/report.json").read_text())["n_total"] == 50


def test_scores_are_printed_where_they_cannot_be_written(moa, data, tmp_path):
    (tmp_path / "file").write_text("")
    path = data / "mt_bench/judgments_routellm_gpt4turbo_mixtral8x7b.jsonl.gz"
    result = moa("mt-bench", "--from-judgments", path, "--out", "file")
    assert result.exit_code == 2
    assert "9.228" in result.stdout


def test_compare_prints_a_table_and_writes_its_files(moa, tmp_path):
    result = moa(
        "compare",
        "together:one",
        "mix.toml",
        "-d",
        "reasoning-gym:chain_sum",
        "--size",
        "4",
        "--no-controls",
        "-o",
        "o",
    )
    assert result.exit_code == 0, result.stderr
    assert "| together:one " in result.stdout
    assert (
        "No difference in accuracy is shown between mix and together:one: 4 questions are too few."
        in result.stdout
    )
    assert "Calls a question differ: together:one 1, mix 3." in result.stdout
    assert (tmp_path / "o/pareto.png").exists()


@pytest.mark.full
def test_ablations_pay_for_each_proposal_once(moa, together, tmp_path):
    result = moa(
        "ablations",
        "together:p",
        "together:q",
        "-d",
        "reasoning-gym:chain_sum",
        "--size",
        "3",
        "--study",
        "layers",
        "--study",
        "ranker",
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found["targets"]) == [
        "2 different",
        "2 different, 3 layers",
        "2 different, 4 layers",
        "2 different, ranked",
    ]
    assert found["targets"]["2 different, 4 layers"]["calls"] == 7
    first_layer = [c for c in together.calls if c.label == "q" and len(c.messages) == 1]
    assert len(first_layer) == 3


def test_mt_bench_and_flask_from_records(moa, data, tmp_path):
    path = data / "mt_bench/judgments_routellm_gpt4turbo_mixtral8x7b.jsonl.gz"
    result = moa("mt-bench", "--from-gradings", path, "--json", "--out", "m")
    found = json.loads(result.stdout)
    assert found["gpt-4-1106-preview"]["average"] == pytest.approx(9.228, abs=5e-4)
    assert (tmp_path / "m/radar.png").exists()
    review = {"idx": 1, "skill": ["Readability"], "review": "{'Readability': 4}"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(review))
    result = moa("flask", "--from-reviews", "mine.jsonl", "--out", "f")
    assert "| Readability               | 4.00 |" in result.stdout
    assert (tmp_path / "f/radar.png").exists()


@pytest.mark.full
def test_mt_bench_with_the_aggregator_alone_beside(moa, together, data, tmp_path):
    together.answers["judge"] = "Rating: [[7]]"
    result = moa(
        "mt-bench",
        "mix.toml",
        "--judge",
        "together:judge",
        "--questions",
        data / "mt_bench/question.jsonl",
        "--reference-answers",
        data / "mt_bench/reference_answer_gpt-4.jsonl",
        "--limit",
        "2",
        "--alone",
        "--json",
        "-o",
        "o",
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found) == ["mix", "together:agg?latency=0.01 alone"]
    assert all(row["average"] == 7 and row["n"] == 4 for row in found.values())


def test_replay_and_similarity(moa, data, tmp_path):
    pool = "gemma-2-9b-it,Qwen2-7B-Instruct"
    result = moa("replay", data / "zero_eval/gsm", "--pool", pool, "--limit", "40", "-o", "r")
    assert result.exit_code == 0, result.stderr
    assert "| majority" in result.stdout
    assert "yi-large (79.98, " in result.stdout
    assert (tmp_path / "r/report.json").exists()
    files = [
        data / f"alpaca_eval/{n}.model_outputs.json.gz" for n in ("Together-MoA", "dbrx-instruct")
    ]
    result = moa("similarity", *files, "--limit", "5")
    assert "| dbrx-instruct |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alpaca", "moa-lit"], "Did you mean 'moa-lite'"),
        (["alpaca"], "Say what to evaluate"),
        (["alpaca", "mix.toml", "--instructions", "empty.json"], "empty.json is empty"),
        (["alpaca", "mix.toml", "--instructions", "cut.json"], "cut.json, line 1: is cut"),
        (["alpaca", "mix.toml", "--instructions", "other.json"], "has no field 'instruction'"),
        (["alpaca", "mix.toml", "--instructions", "asked.json", "--judge"], "set OPENAI_API_KEY"),
        (["alpaca", "--from-annotations", "asked.json"], "has no field 'preference'"),
        (["mt-bench", "mix.toml"], "A judge is needed"),
        (["mt-bench", "mix.toml", "--judge", "openai:x"], "OPENAI_API_KEY"),
        (["mt-bench", "--from-gradings", "asked.json"], "has no field 'question_id'"),
        (["flask", "mix.toml"], "git clone https://github.com/kaistAI/FLASK"),
        (["flask", "--from-reviews", "empty.json"], "is empty"),
        (["compare", "together:a", "-d", "asked.json"], "two or more"),
        (["compare", "mix.toml", "nope", "-d", "asked.json"], "There is no preset 'nope'"),
        (["compare", "mix.toml", "together:a", "-d", "asked.json", "--judge", "openai:x"], "KEY"),
        (["compare", "mix.toml", "together:a", "-d", "nowhere.json"], "There is no file"),
        (["ablations", "together:a", "-d", "asked.json"], "two or more models"),
        (["replay", "nowhere"], "There is no file or folder nowhere"),
        (["similarity", "asked.json", "cut.json"], "is cut"),
        (["alpaca", "mix.toml", "--instructions", "asked.json", "-o", "cut.json/o"], "cut.json/o"),
        (
            ["compare", "mix.toml", "together:a", "-d", "asked.json", "--prices", "cut.json"],
            "prices",
        ),
        (
            ["compare", "mix.toml", "together:a", "-d", "asked.json", "--prices", "price.json"],
            "the price of 'a' is '12'",
        ),
        (["alpaca", "mix.toml", "--preset", "moa"], "not both"),
        (["alpaca", "mix.toml", "--instructions", "null.json"], "row 1: `instruction` must be"),
        (["alpaca", "mix.toml", "--judge", "--annotator", "cohere"], "pip install cohere"),
        (["mt-bench", "mix.toml", "--judge", "together:j", "--questions", "turns.json"], "texts"),
        (["replay", "set", "--out", "cut.json"], "cut.json"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(moa, together, tmp_path, arguments, said):
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "cut.json").write_text('[{"instruction": "x", "outp')
    (tmp_path / "other.json").write_text('[{"text": "x"}]')
    (tmp_path / "null.json").write_text('[{"instruction": null}]')
    (tmp_path / "price.json").write_text('{"a": "12"}')
    (tmp_path / "turns.json").write_text(
        '[{"question_id": 1, "category": "math", "turns": ["hi", null]}]'
    )
    result = moa(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not together.calls


def test_failed_items_end_with_an_error_and_keep_the_others(moa, tmp_path):
    asked = ("alpaca", "together:x?fail_first=3", "--instructions", "asked.json", "-o", "o")
    result = moa(*asked, "--at-once", "1")
    assert result.exit_code == 1
    assert "1 of 30 answers failed" in result.stderr
    assert len(json.loads((tmp_path / "o/model_outputs.json").read_text())) == 29
    assert moa(*asked).exit_code == 0
    assert len(json.loads((tmp_path / "o/model_outputs.json").read_text())) == 30


@pytest.mark.full
def test_killed_at_any_moment_no_item_is_generated_twice_and_none_is_missing(
    moa, together, tmp_path
):
    command = [
        sys.executable,
        "-m",
        "moa_graph",
        "eval",
        "alpaca",
        "mix.toml",
        "--instructions",
        "asked.json",
        "--out",
        "o",
        "--at-once",
        "2",
    ]
    rng = random.Random(5)
    journal = tmp_path / "o" / "answers.jsonl"
    kills = 0
    for _ in range(7):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        before = journal.read_bytes().count(b"\n") if journal.exists() else 0
        until = before + rng.randint(1, 4)
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") >= until:
                time.sleep(rng.random() * 0.03)
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
        if process.returncode == 0:
            break
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert kills >= 3

    outputs = json.loads((tmp_path / "o/model_outputs.json").read_text())
    assert [row["instruction"] for row in outputs] == [f"question {i}" for i in range(30)]
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert Counter(row["key"] for row in rows) == Counter(str(i) for i in range(30))
    # Only what was in flight at a kill was asked again: two items, of which stored proposals stay.
    answered = Counter(c.messages[-1]["content"] for c in together.of("agg"))
    assert sum(answered.values()) - 30 <= 2 * kills
    for label in ("a", "b"):
        asked = Counter(c.messages[-1]["content"] for c in together.of(label))
        assert sum(asked.values()) - 30 <= 2 * kills
