"""The same tree through OpenTelemetry, in a real trace server: Arize Phoenix."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.integration.environments import environment
from tests.test_tracing import TREE

pytestmark = pytest.mark.services

STARTS_WITHIN = 240  # seconds; on a busy machine

RUN = """
import asyncio, sys
from langchain_core.tracers.langchain import wait_for_all_tracers
from langchain_openai import ChatOpenAI
from opentelemetry import trace
from moa_graph import Proposer, create_moa

def chat(model):
    return ChatOpenAI(model=model, base_url=sys.argv[1], api_key="sk-test-0123456789")

proposers = [
    chat("a"),
    Proposer(chat("b?status=401"), name="refused"),
    Proposer(chat("c?status=500&times=1"), name="shaky"),
    chat("d"),
]
asyncio.run(create_moa(proposers, chat("agg"), layers=3).ainvoke({"messages": "hi"}))
wait_for_all_tracers()
trace.get_tracer_provider().force_flush()
"""


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory):
    """Its address. It is installed on first use, in an environment of its own."""
    programs = environment("phoenix", "arize-phoenix>=11")
    folder = tmp_path_factory.mktemp("phoenix")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    settings = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": ports[0],
        "PHOENIX_GRPC_PORT": ports[1],
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [programs / "phoenix", "serve"],
            env=os.environ | settings,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        started = time.monotonic()
        while True:
            try:
                httpx.get(f"{url}/healthz", timeout=2).raise_for_status()
                break
            except httpx.HTTPError:
                log = (folder / "log").read_text()
                assert process.poll() is None, log
                assert time.monotonic() - started < STARTS_WITHIN, log
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_the_tree_comes_through_opentelemetry(phoenix, server):
    tracing = {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_OTEL_ENABLED": "true",
        "LANGSMITH_OTEL_ONLY": "true",
        "LANGSMITH_API_KEY": "not used",
        "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix,
    }
    subprocess.run(
        [sys.executable, "-c", RUN, server.url], env=os.environ | tracing, check=True, timeout=60
    )
    spans: list[dict] = []
    for _ in range(50):
        answer = httpx.get(f"{phoenix}/v1/projects/default/spans", params={"limit": 100})
        spans = answer.json()["data"] if answer.status_code == 200 else []
        if len(spans) == TREE.count("\n") + 1:
            break
        time.sleep(0.2)

    drawn = "\n".join(line.partition("  !")[0] for line in TREE.splitlines())
    assert _drawn(spans) == drawn
    of_layer = [s for s in spans if s["name"] == "layer_2_shaky"]
    assert of_layer[0]["attributes"]["langsmith.metadata.moa_layer"] == 2
    tags = of_layer[0]["attributes"]["langsmith.span.tags"]
    assert {"moa:layer:2", "moa:proposer:shaky"} <= set(tags.split(", "))
    for refused in [s for s in spans if s["name"].endswith("refused")]:
        (event,) = refused["events"]
        assert "refused the API key" in event["attributes"]["exception.message"]
    calls = [s for s in spans if s["span_kind"] == "LLM"]
    answered = [s for s in calls if "llm.token_count.completion" in s["attributes"]]
    assert len(answered) == len(calls) - 3  # two were refused, one failed and was asked again
    assert all("Responses from models" not in str(s) or "a: hi" in str(s) for s in calls)


def _drawn(spans: list[dict]) -> str:
    """The tree as the receiver of LangSmith's protocol draws it."""

    def below(parent: str | None, depth: int) -> list[str]:
        children = [s for s in spans if s["parent_id"] == parent]
        children.sort(key=lambda s: (s["attributes"].get(STEP, 0), s["name"], s["start_time"]))
        lines = []
        for span in children:
            kind = "llm" if span["span_kind"] == "LLM" else "chain"
            lines.append(f"{'  ' * depth}{span['name']} [{kind}]")
            lines += below(span["context"]["span_id"], depth + 1)
        return lines

    return "\n".join(below(None, 0))


STEP = "langsmith.metadata.langgraph_step"
