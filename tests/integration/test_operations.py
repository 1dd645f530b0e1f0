"""What operators read: metrics, health checks, request ids, logs."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from langgraph_sdk import get_client
from prometheus_client.parser import text_string_to_metric_families

from tests.fake_server import eventually
from tests.integration.langgraph_server import langgraph_dev

KEY, TOKEN = "alice-0123456789abcdef", "metrics-0123456789abcdef"
QUESTION = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def guarded(_server, tmp_path_factory):
    """A server with keys and a token for the metrics, and logs in JSON."""
    settings = {
        "OPENAI_BASE_URL": _server.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "MOA_API_KEYS": f"alice={KEY}",
        "MOA_METRICS_TOKEN": TOKEN,
        "MOA_ALLOWED_MODELS": "openai:*",
        "MOA_STRICT": "1",
        "LOG_JSON": "true",
    }
    folder = tmp_path_factory.mktemp("guarded")
    with langgraph_dev(folder, "--n-jobs-per-worker", "10", **settings) as server:
        yield server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def metrics(server):
    told = httpx.get(f"{server.url}/metrics", headers=bearer(TOKEN))
    assert told.status_code == 200
    return {
        (sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "le")): sample.value
        for family in text_string_to_metric_families(told.text)
        for sample in family.samples
        if sample.name.startswith("moa_")
    }


async def test_metrics_tell_what_runs_did(guarded, server):
    gpt = "gpt-4o-mini"  # its price is known
    context = {
        "proposers": [
            {"proposers": ["openai:a", "openai:b?status=401", "openai:c?latency=9"], "quorum": 1}
        ],
        "aggregator": f"openai:{gpt}",
    }
    failing = {"proposers": ["openai:a"], "aggregator": "openai:agg?status=401"}
    slow = {"proposers": ["openai:a"], "aggregator": "openai:agg?hang"}
    async with get_client(url=guarded.url, api_key=KEY) as client:
        async for _ in client.runs.stream(
            None, "mixture", input=QUESTION, context=context, stream_mode=["messages-tuple"]
        ):
            pass
        await client.runs.wait(None, "mixture", input=QUESTION, context=failing, raise_error=False)
        thread = (await client.threads.create())["thread_id"]
        run = await client.runs.create(thread, "mixture", input=QUESTION, context=slow)
        await eventually(lambda: server.of("agg")[1:])
        assert metrics(guarded)["moa_runs_in_progress", "mixture"] == 1
        await client.runs.cancel(thread, run["run_id"], wait=True)
    told = metrics(guarded)
    assert told["moa_runs_accepted_total",] == 3
    assert told["moa_runs_started_total", "mixture"] == 3
    ended = {s: told["moa_runs_total", "mixture", s] for s in ("success", "error", "cancelled")}
    assert ended == {"success": 1, "error": 1, "cancelled": 1}
    assert told["moa_runs_in_progress", "mixture"] == 0
    assert told["moa_proposals_total", "a", "ok"] == 3
    assert told["moa_proposals_total", "b?status=401", "failed"] == 1
    assert told["moa_proposals_total", "c?latency=9", "abandoned"] == 1
    assert told["moa_proposal_seconds_count", "a"] == 3
    (called,) = [call for call in server.calls if call.model == gpt]
    assert told["moa_tokens_total", "output", gpt] == called.usage["completion_tokens"]
    assert told["moa_tokens_total", "input", gpt] == called.usage["prompt_tokens"]
    assert told["moa_dollars_total", gpt] > 0
    assert told["moa_queue_seconds_count",] == 3
    assert told["moa_first_token_seconds_count",] == 1
    assert told["moa_run_seconds_count", "mixture"] == 3


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/metrics", None, 401),
        ("/metrics", KEY, 404),
        ("/metrics", "x" * 24, 401),
        ("/metrics", TOKEN, 200),
        ("/assistants/search", TOKEN, 401),
        ("/v1/models", TOKEN, 401),
        ("/live", None, 200),
        ("/ready", None, 200),
    ],
)
def test_the_token_reads_the_metrics_and_nothing_else(guarded, path, key, status):
    told = httpx.get(f"{guarded.url}{path}", headers=bearer(key) if key else {})
    assert told.status_code == status


def test_a_server_without_keys_tells_metrics_to_this_machine(langgraph_server):
    assert "moa_runs_accepted_total" in httpx.get(f"{langgraph_server.url}/metrics").text
    assert httpx.get(f"{langgraph_server.url}/ready").json() == {"status": "ok"}


@pytest.mark.parametrize("given", ["abc-123", None, "x" * 200, "a b", 'a"\\', "ü"])
def test_request_ids(guarded, given):
    headers = bearer(KEY) | ({"X-Request-ID": given.encode()} if given else {})
    told = httpx.get(f"{guarded.url}/v1/models", headers=headers).headers
    assert told["request-id"] == told["x-request-id"]
    if given == "abc-123":
        assert told["x-request-id"] == given
    else:
        assert told["x-request-id"] != given
        assert len(told["x-request-id"]) == 32


async def test_the_log_has_the_run_with_its_request_id(guarded, server):
    body = {"model": "mixture", "messages": QUESTION["messages"]}
    async with httpx.AsyncClient(base_url=guarded.url, headers=bearer(KEY), timeout=30) as client:
        context = {"proposers": ["openai:a"], "aggregator": "openai:agg"}
        made = {"graph_id": "mixture", "name": "logged", "context": context}
        await client.post("/assistants", json=made)
        body["model"] = "logged"
        told = await client.post(
            "/v1/chat/completions", json=body, headers={"X-Request-ID": "find-me"}
        )
        assert told.status_code == 200, told.text
    for _ in range(100):
        lines = [json.loads(line) for line in guarded.log.splitlines() if "find-me" in line]
        if ended := [line for line in lines if line.get("moa_request_id") == "find-me"]:
            break
        await asyncio.sleep(0.05)
    (line,) = ended
    assert line["moa_status"] == "success"
    assert line["moa_proposals"] == {"ok": 1}
    assert line["moa_tokens"] > 0


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
def test_a_strict_server_refuses_unknown_fields(guarded, server, path):
    body = {"model": "x", "max_tokens": 9, "messages": QUESTION["messages"], "input": "hi"}
    del body["input" if path != "responses" else "messages"]
    if path == "responses":
        del body["max_tokens"]
    told = httpx.post(f"{guarded.url}/v1/{path}", json={**body, "best_of": 3}, headers=bearer(KEY))
    assert told.status_code == 400
    assert "best_of: this field is unknown" in told.json()["error"]["message"]
