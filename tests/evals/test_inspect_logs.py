"""Logs of Inspect as recorded answers. The logs are written by Inspect itself, with its mock model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app
from moa_graph.evals.files import EvalError
from moa_graph.evals.inspect_logs import is_log, read_logs
from moa_graph.evals.records import read_records

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
pytest.importorskip("inspect_ai", reason="needs inspect_ai, which reads its logs")

WRITE = """
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate
name, wrong, folder, kind, epochs = sys.argv[1:]
n = 40
said = [f"ANSWER: {i + (i % 10 < int(wrong))}" for i in range(n)] * int(epochs)
outputs = [ModelOutput.from_content(name, text) for text in said]
for output in outputs:  # without it, its tokenizer is fetched
    output.usage = ModelUsage(input_tokens=5, output_tokens=4, total_tokens=9)
samples = [Sample(input=f"What is {i}?", target=str(i), id=i) for i in range(n)]
task = Task(dataset=samples, solver=generate(), scorer=match(), name="numbers")
model = get_model("mockllm/" + name, custom_outputs=outputs)
(log,) = eval(task, model=model, log_dir=folder, log_format=kind, display="none",
              max_connections=1, max_samples=1, epochs=int(epochs))
assert log.status == "success", log.error
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two logs of one task, in a folder."""
    folder = tmp_path_factory.mktemp("logs")
    for name, wrong, epochs in (("good", 1, 1), ("bad", 4, 2)):
        command = [sys.executable, "-c", WRITE, name, str(wrong), str(folder), "eval", str(epochs)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def as_json(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    command = [sys.executable, "-c", WRITE, "good", "2", str(folder), "json", "1"]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.json")
    return path


def test_logs_of_one_task_are_one_set(logs):
    (found,) = read_records([logs])
    assert found.name == "numbers"
    assert len(found.questions) == 40
    assert found.questions["3"] == "What is 3?"
    accuracy = {name: model.accuracy for name, model in found.models.items()}
    assert accuracy == {"mockllm/good": 0.9, "mockllm/bad": 0.6}
    answer = found.models["mockllm/good"].answers["7"]
    assert (answer.reply, answer.correct, answer.tokens) == ("ANSWER: 7", True, 9)


def test_the_json_form_is_read(as_json):
    assert is_log(as_json)
    (found,) = read_logs([as_json])
    assert found.models["mockllm/good"].accuracy == pytest.approx(0.8)


@pytest.mark.parametrize("command", ["pool", "replay"])
def test_pool_and_replay_read_them(logs, command, tmp_path):
    result = CliRunner().invoke(app, ["eval", command, str(logs), "--json", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["sets"]
    assert found["set"] == "numbers"


def test_a_second_log_of_a_model_is_told(logs):
    paths = sorted(logs.glob("*.eval"))
    with pytest.raises(EvalError, match="is a second log of mockllm/"):
        read_logs([*paths, paths[0]])


@pytest.mark.parametrize("content", [b"", b"zip", b"PK\x03\x04" + b"\0" * 99, b"{", b'{"eval": 1}'])
@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_a_damaged_log_is_told(tmp_path, content, suffix):
    path = tmp_path / f"log{suffix}"
    path.write_bytes(content)
    with pytest.raises(EvalError, match="log") as error:
        read_records([path])
    assert "\n" not in str(error.value)


def test_a_truncated_log_is_told(logs, tmp_path):
    data = next(logs.glob("*.eval")).read_bytes()
    for size in (len(data) // 2, len(data) - 10):
        (tmp_path / "log.eval").write_bytes(data[:size])
        with pytest.raises(EvalError, match="is not a log of Inspect"):
            read_records([tmp_path / "log.eval"])


def test_without_the_package_the_command_that_helps_is_told(logs, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(EvalError, match="pip install inspect_ai"):
        read_records([logs])
