"""Anthropic's Messages API, driven by Anthropic's own client and LangChain's."""

from __future__ import annotations

import json

import anthropic
import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from pydantic import BaseModel

from tests.fake_server import eventually
from tests.integration.conftest import PNG

QUESTION = [{"role": "user", "content": "hi"}]
SEARCH = {
    "name": "search",
    "description": "Search the city's events.",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}},
}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def client(langgraph_server):
    with Anthropic(base_url=langgraph_server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def mine(named):
    return named("for Anthropic")


def ask(client, model, messages=QUESTION, **given):
    return client.messages.create(
        **{"max_tokens": 100, "model": model, "messages": messages, **given}
    )


def test_an_answer_with_the_tokens_of_all_models(client, mine, server):
    answer = ask(client, mine, system="Be brief.")
    assert answer.content[0].text == "agg: hi"
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", mine, "assistant")
    assert len(server.calls) == 3
    assert answer.usage.output_tokens == sum(
        call.usage["completion_tokens"] for call in server.calls
    )
    assert all(call.messages[0]["role"] in ("system", "developer") for call in server.calls)
    assert (
        server.of("agg")[0].body[
            "max_tokens" if "max_tokens" in server.of("agg")[0].body else "max_completion_tokens"
        ]
        == 100
    )


def test_it_streams(client, mine, server):
    server.answers["agg"] = "one two three four"
    with client.messages.stream(model=mine, max_tokens=50, messages=QUESTION) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_message()
    assert whole.content[0].text == "one two three four"
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("text") > 1
    assert whole.usage.output_tokens > 4
    assert whole.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("parallel", [1, 2])
def test_tools(client, named, server, stream, parallel):
    model = named(
        f"tools {stream} {parallel}", aggregator=f"openai:agg?steps=1&parallel={parallel}"
    )
    messages = [*QUESTION]
    given = {"tools": [SEARCH], "tool_choice": {"type": "any"}}

    def answer():
        if not stream:
            return ask(client, model, messages, **given)
        with client.messages.stream(model=model, max_tokens=50, messages=messages, **given) as told:
            return told.get_final_message()

    first = answer()
    calls = [block for block in first.content if block.type == "tool_use"]
    assert first.stop_reason == "tool_use"
    assert len(calls) == parallel
    assert all(call.name == "search" and isinstance(call.input, dict) for call in calls)
    results = [
        {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": [{"type": "text", "text": f"r{n}"}],
        }
        for n, call in enumerate(calls)
    ]
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    given["tool_choice"] = {"type": "auto"}
    assert answer().stop_reason == "end_turn"
    told = [m for m in server.of("agg")[-1].messages if m["role"] == "tool"]
    assert [m["content"] for m in told] == [f"r{n}" for n in range(parallel)]


def test_the_tool_runner(client, named, server):
    @anthropic.beta_tool
    def search(query: str) -> str:
        """Search the city's events."""
        return f"found {query}"

    runner = client.beta.messages.tool_runner(
        model=named("tool runner", aggregator="openai:agg?steps=1&parallel=2"),
        max_tokens=50, messages=[{"role": "user", "content": "What is on in 'SF'?"}], tools=[search],
    )  # fmt: skip
    assert runner.until_done().stop_reason == "end_turn"
    told = [m for m in server.of("agg")[-1].messages if m["role"] == "tool"]
    assert [m["content"] for m in told] == ["found SF", "found SF"]


def test_structured_output(client, named, server):
    told = client.messages.parse(
        model=named("structured messages"), max_tokens=100, messages=QUESTION, output_format=Weather
    )
    assert isinstance(told.parsed_output, Weather)
    assert server.of("agg")[0].body["response_format"]["type"] == "json_schema"


def test_images_and_documents(client, mine, server):
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "T"},
            "title": "D",
        },
        {"type": "text", "text": "what is it?"},
    ]
    ask(client, mine, [{"role": "user", "content": content}])
    seen = json.dumps(server.of("a")[0].messages)
    assert f"data:image/png;base64,{PNG}" in seen
    assert "https://example.com/a.png" in seen
    assert "D\\n\\nT" in seen


def test_sampling_reaches_the_aggregator_alone(client, mine, server):
    ask(
        client, mine, stop_sequences=["END"], extra_body={"temperature": 0.3, "top_p": 0.9, "top_k": 7},
        output_config={"effort": "high"}, metadata={"user_id": "u1"},
    )  # fmt: skip
    body = server.of("agg")[0].body
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.3, 0.9, 7)
    assert (body["stop"], body["reasoning_effort"]) == (["END"], "high")
    assert "top_k" not in server.of("a")[0].body


def test_reasoning_of_an_earlier_answer_is_left_out(client, mine, server):
    before = [
        {"type": "thinking", "thinking": "SECRET", "signature": "x"},
        {"type": "redacted_thinking", "data": "SECRET"},
        {"type": "text", "text": "4"},
    ]
    ask(client, mine, [*QUESTION, {"role": "assistant", "content": before}, *QUESTION])
    assert "SECRET" not in json.dumps([call.messages for call in server.calls])


WRONG = {
    "no messages": ({"messages": []}, 400, "messages"),
    "no max_tokens": ({"max_tokens": None}, 400, "max_tokens"),
    "an answer to go on from": (
        {"messages": [*QUESTION, {"role": "assistant", "content": "It is"}]}, 400, "last message",
    ),
    "a tool of Anthropic's": (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, 400, "tools.0",
    ),
    "a file": (
        {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}]}]},
        400, "url",
    ),
    "a private address": (
        {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/x"}}]}]},
        400, "private network",
    ),
    "an MCP server": ({"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]}, 400, "mcp_servers"),
    "a compaction": ({"compaction": {"type": "auto"}}, 400, "compaction: this server does not support"),
    "a thread": ({"thread": {"type": "create"}}, 400, "thread: this server does not keep conversations"),
    "a context": ({"context": {"layers": 3}}, 400, "context"),
    "too many messages": ({"messages": QUESTION * 600}, 413, "MOA_MAX_MESSAGES"),
    "an unknown model": ({"model": "gpt-9"}, 404, "Unknown model"),
    "a tool choice without tools": ({"tool_choice": {"type": "any"}}, 400, "tool_choice"),
}  # fmt: skip
KINDS = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large"}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_and_calls_no_model(langgraph_server, mine, server, case):
    changes, status, says = WRONG[case]
    body = {"model": mine, "max_tokens": 9, "messages": QUESTION, **changes}
    told = httpx.post(f"{langgraph_server.url}/v1/messages", json=body, timeout=30)
    assert told.status_code == status, told.text
    assert told.json()["type"] == "error"
    assert told.json()["error"]["type"] == KINDS[status]
    assert says in told.json()["error"]["message"]
    assert server.calls == []


def test_unknown_fields_are_ignored_and_named(langgraph_server, mine):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {"model": mine, "max_tokens": 9, "messages": QUESTION, "thinking": thinking, "x": 1}
    told = httpx.post(f"{langgraph_server.url}/v1/messages", json=body, timeout=30)
    assert told.headers["warning"] == '299 moa-graph "Ignored: thinking, x"'


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_run_says_why_and_is_not_repeated(langgraph_server, named, server, stream):
    down = named(f"down of messages {stream}", aggregator="openai:agg?status=401")
    with Anthropic(base_url=langgraph_server.url, api_key="none", max_retries=3) as client:  # noqa: SIM117
        with pytest.raises(anthropic.InternalServerError, match="aggregator") as error:
            ask(client, down, stream=stream)
    assert error.value.status_code == 502
    assert len(server.of("a")) == 1


def test_an_error_in_the_midst_of_a_stream_is_raised(client, named, server):
    cut = named("cut of messages", aggregator="openai:agg?cut=3&tps=5")
    server.answers["agg"] = "one two three four five six"
    with pytest.raises(anthropic.APIStatusError, match="aggregator"):
        for _ in ask(client, cut, stream=True):
            pass


async def test_a_client_that_disconnects_cancels_the_run(langgraph_server, named, server):
    slow = named("slow of messages", aggregator="openai:agg?tps=5")
    server.answers["agg"] = "word " * 1000
    async with AsyncAnthropic(base_url=langgraph_server.url, api_key="none") as client:
        stream = await client.messages.create(
            model=slow, max_tokens=5000, messages=QUESTION, stream=True
        )
        async for event in stream:
            if event.type == "content_block_delta":
                break
        await stream.close()
    await eventually(lambda: server.of("agg")[0].disconnected)


def test_models_are_listed_for_anthropics_client(client, mine):
    assert mine in {model.id for model in client.models.list()}
    assert client.models.retrieve(mine).display_name == mine


async def test_langchains_client(langgraph_server, named, server):
    tool = {
        "type": "function",
        "function": {"name": "search", "parameters": SEARCH["input_schema"]},
    }
    model = ChatAnthropic(
        model=named("of ChatAnthropic", aggregator="openai:agg?steps=1"),
        base_url=langgraph_server.url, api_key="none", max_tokens=50,
    ).bind_tools([tool])  # fmt: skip
    question = HumanMessage("hi")
    called = await model.ainvoke([question])
    (call,) = called.tool_calls
    result = ToolMessage("found", tool_call_id=call["id"], status="error")
    chunks = [chunk async for chunk in model.astream([question, called, result])]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.text
    assert not whole.tool_calls
    assert whole.usage_metadata["output_tokens"] > 0
