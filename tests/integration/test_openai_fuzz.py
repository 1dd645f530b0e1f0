"""The OpenAI-compatible endpoint under requests that nobody has thought of."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph_sdk import get_sync_client

from tests.integration.environments import environment

NAME = "fuzzed"
ANSWERS = {200, 400, 404}


@pytest.fixture(scope="module")
def url(langgraph_server):
    """The endpoint of a server that has an assistant of that name."""
    client = get_sync_client(url=langgraph_server.url)
    context = {"proposers": ["openai:a"], "aggregator": "openai:agg"}
    client.assistants.create("mixture", name=NAME, context=context)
    return langgraph_server.url


def no_crash(log: str) -> None:
    assert "Exception in ASGI application" not in log
    assert "Task exception was never retrieved" not in log
    assert " 500 " not in log


@pytest.mark.services
def test_schemathesis_finds_nothing(url, langgraph_server, tmp_path):
    """With the description of the endpoint that the server itself gives."""
    tool = str(environment("schemathesis", "schemathesis>=4") / "st")
    # What one field says of another (a tool choice without tools) is in no schema.
    options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "50"]
    options += ["--mode", "all", "--suppress-health-check", "all", "--no-color"]
    options += ["--generation-deterministic"]  # what a change breaks, and no lottery
    # Too many messages are refused with 413, which the tool does not expect.
    expected = '[checks]\nnegative_data_rejection.expected-statuses = ["4xx"]\n'
    (tmp_path / "schemathesis.toml").write_text(expected)
    found = subprocess.run(
        [tool, "run", f"{url}/openapi.json", "--include-path-regex", "^/v1/", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-5000:]
    assert "Selected: 7/" in found.stdout
    no_crash(langgraph_server.log)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
text = st.text(max_size=30)


def known(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """An object with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


function = known(
    name=text | st.sampled_from(["f", "g"]),
    description=text,
    arguments=text | st.just("{}"),
    parameters=anything | st.just({"type": "object", "properties": {"a": {"type": "string"}}}),
    strict=st.booleans(),
)
tool = known(id=text, type=st.just("function") | text, function=function)
part = known(
    type=st.sampled_from(["text", "image_url", "input_audio", "file", "refusal"]) | text,
    text=text,
    image_url=known(url=text) | anything,
    input_audio=anything,
    file=anything,
)
message = known(
    role=st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | text,
    content=text | st.lists(part, max_size=2) | anything,
    tool_calls=st.lists(tool, max_size=2) | anything,
    tool_call_id=text,
    name=text,
)
question = st.fixed_dictionaries({"role": st.just("user"), "content": text.filter(str.strip)})
schema = known(name=text | st.just("s"), schema=anything, strict=st.booleans())
request = st.fixed_dictionaries(
    {
        "model": st.just(NAME) | text,
        "messages": st.lists(question, min_size=1, max_size=2) | st.lists(message, max_size=3),
    },
    optional={
        "stream": st.booleans() | anything,
        "stream_options": known(include_usage=st.booleans()) | anything,
        "temperature": st.floats(0, 2) | anything,
        "top_p": st.floats(0, 1) | anything,
        "seed": st.integers() | anything,
        "max_tokens": st.integers(1, 10**7) | anything,
        "stop": text | st.lists(text, max_size=5) | anything,
        "tools": st.lists(tool, max_size=3) | anything,
        "tool_choice": st.sampled_from(["none", "auto", "required"]) | tool | anything,
        "response_format": st.fixed_dictionaries(
            {"type": st.sampled_from(["text", "json_object", "json_schema"])},
            optional={"json_schema": schema | anything},
        )
        | anything,
        "n": st.integers(0, 3),
        "user": text,
        "metadata": st.dictionaries(text, text, max_size=2) | anything,
        "extra": anything,
    },
)


@pytest.mark.full
@settings(
    max_examples=200,
    deadline=timedelta(seconds=30),
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(body=request | anything)
def test_whatever_is_asked_is_answered_or_told(url, body):
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        content=json.dumps(body),  # with NaN and halves of characters, as Python writes them
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code in ANSWERS, (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    elif "data:" in answer.text:
        events = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        *chunks, end = [event.removeprefix("data: ") for event in events]
        assert end == "[DONE]", end
        assert all(json.loads(chunk)["object"] == "chat.completion.chunk" for chunk in chunks)
    else:
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"


@settings(max_examples=100, deadline=timedelta(seconds=30), derandomize=True)
@given(body=st.binary(max_size=100) | st.sampled_from([b"[" * 100_000, b"{" * 10, b"1e999", b""]))
def test_bytes_that_are_no_json_are_told(url, body):
    answer = httpx.post(
        f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == (413 if body == b"[" * 100_000 else 400), answer.text
    assert answer.json()["error"]["message"]


def test_nothing_has_crashed(url, langgraph_server):
    no_crash(langgraph_server.log)
