"""Other evaluation harnesses, of a mixture: Inspect and lm-eval through `/v1`, and Inspect's logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from langgraph_sdk import get_sync_client
from typer.testing import CliRunner

from moa_graph.cli.app import app
from tests.integration.environments import environment

HERE = Path(__file__).parent / "harnesses"
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima"}
KEY = {"OPENAI_API_KEY": "sk-test-0123456789"}
pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def knows(call):
    """A model that knows all capitals but Lima."""
    country = re.search(r"Capital of (\w+)", call.messages[-1]["content"] + call.system)[1]
    return f"It is {CAPITALS[country]}." if country != "Peru" else "I do not know."


@pytest.fixture
def url(langgraph_server, server):
    """The endpoint of a server that has an assistant named `moa-capitals`."""
    server.answers |= {"a": knows, "b": knows, "agg": knows}
    client = get_sync_client(url=langgraph_server.url)
    context = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}
    client.assistants.create(
        "mixture", name="moa-capitals", context=context, if_exists="do_nothing"
    )
    return f"{langgraph_server.url}/v1"


def run(command, folder, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, **KEY, "INSPECT_DISPLAY": "plain", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_inspect_evaluates_a_mixture_through_the_server(url, server, tmp_path):
    command = Path(sys.executable).with_name("inspect")
    model = "openai-api/moa/moa-capitals"
    shutil.copy(HERE / "capitals.py", tmp_path)
    said = run(
        [command, "eval", "capitals.py", "--model", model, "--log-dir", "logs"],
        tmp_path,
        MOA_BASE_URL=url,
        MOA_API_KEY="none",
    )
    assert re.findall(r"accuracy[:\s]+([\d.]+)", said)[-1].startswith("0.75")
    assert {call.label for call in server.calls} == {"a", "b", "agg"}


def in_process(model, folder, server):
    """Inspect with LangChain's chat models as its own; its log is in a folder."""
    logs = folder / "logs"
    script = [sys.executable, HERE / "capitals.py", model, logs]
    said = run(script, folder, OPENAI_BASE_URL=server.url)
    return logs, float(re.findall(r"accuracy[:\s]+([\d.]+)", said)[-1])


def test_inspect_evaluates_a_mixture_through_langchain(server, tmp_path):
    server.answers |= {"a": knows, "b": knows, "agg": knows}
    _, accuracy = in_process("langchain/moa", tmp_path, server)
    assert accuracy == 0.75
    assert {call.label for call in server.calls} == {"a", "b", "agg"}


def test_lm_eval_evaluates_a_mixture_through_the_server(url, server, tmp_path):
    tool = environment("lm-eval", "lm-eval[api]>=0.4.9") / "lm-eval"
    rows = [{"country": country, "city": city} for country, city in CAPITALS.items()]
    (tmp_path / "capitals.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shutil.copy(HERE / "capitals.yaml", tmp_path)
    arguments = f"model=moa-capitals,base_url={url}/chat/completions,num_concurrent=2"
    run(
        [
            *(tool, "run", "--model", "local-chat-completions", "--model_args", arguments),
            *("--include_path", ".", "--tasks", "capitals", "--apply_chat_template"),
            *("--output_path", "found"),
        ],
        tmp_path,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "home"),
    )
    (path,) = (tmp_path / "found").rglob("results*.json")
    assert json.loads(path.read_text())["results"]["capitals"]["exact_match,last-word"] == 0.75
    assert {call.label for call in server.calls} == {"a", "b", "agg"}


def test_logs_of_inspect_are_recorded_answers(server, tmp_path):
    server.answers |= {"a": knows, "b": lambda call: "It is Lima."}
    for name in ("a", "b"):
        logs, _ = in_process(f"langchain/openai:{name}", tmp_path, server)
    result = CliRunner().invoke(app, ["eval", "replay", str(logs), "--json"])
    assert result.exit_code == 0, result.stderr
    (found,) = json.loads(result.stdout)["sets"]
    assert found["set"] == "capitals"
    assert {row["model"]: row["accuracy"] for row in found["models"]} == {
        "langchain/openai:a": 75.0,
        "langchain/openai:b": 25.0,
    }
