"""OpenAI's Responses API, driven by OpenAI's own client and LangChain's."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph_sdk import get_sync_client
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.fake_server import eventually
from tests.integration.conftest import PNG

SEARCH = {
    "type": "function",
    "name": "search",
    "description": "Search the city's events.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def client(langgraph_server):
    with OpenAI(base_url=f"{langgraph_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def mine(named):
    return named("for responses")


def whole(stream):
    """The last response of a stream, and the kinds of its events."""
    kinds, numbers, last = [], [], None
    for event in stream:
        kinds.append(event.type)
        numbers.append(event.sequence_number)
        last = event
    assert numbers == [*range(len(numbers))]
    return last.response, kinds


def test_an_answer_with_the_tokens_of_all_models(client, mine, server):
    told = client.responses.create(model=mine, input="hi", instructions="Be brief.", store=False)
    assert told.output_text == "agg: hi"
    assert (told.status, told.model, told.object) == ("completed", mine, "response")
    assert told.instructions == "Be brief."
    assert told.usage.output_tokens == sum(c.usage["completion_tokens"] for c in server.calls)
    assert all(call.messages[0]["role"] in ("system", "developer") for call in server.calls)


def test_it_streams(client, mine, server):
    server.answers["agg"] = "one two three"
    told, kinds = whole(client.responses.create(model=mine, input="hi", stream=True, store=False))
    assert told.output_text == "one two three"
    assert told.usage.output_tokens > 3
    assert kinds[:4] == [
        "response.created", "response.in_progress",
        "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds.count("response.output_text.delta") > 1
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    with client.responses.stream(model=mine, input="hi", store=False) as stream:
        assert stream.get_final_response().output_text == "one two three"


@pytest.mark.parametrize("way", ["whole", "stream"])
@pytest.mark.parametrize("history", ["items", "previous", "references"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_tools(client, named, server, way, history, parallel):
    model = named(
        f"{way} {history} {parallel}", aggregator=f"openai:agg?steps=1&parallel={parallel}"
    )

    def answer(**given):
        told = client.responses.create(
            model=model, tools=[SEARCH], stream=way == "stream", store=history != "items", **given
        )
        return whole(told)[0] if way == "stream" else told

    first = answer(input="hi", tool_choice="required", instructions="Use tools.")
    calls = [item for item in first.output if item.type == "function_call"]
    assert len(calls) == parallel
    assert all(call.name == "search" and json.loads(call.arguments) for call in calls)
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"r{number}"}
        for number, call in enumerate(calls)
    ]
    asked = {"role": "user", "content": "hi"}
    if history == "items":
        second = answer(input=[asked, *first.output, *outputs])
    elif history == "previous":
        second = answer(input=outputs, previous_response_id=first.id)
    else:
        references = [{"type": "item_reference", "id": item.id} for item in first.output]
        second = answer(input=[asked, *references, *outputs])
    assert second.output_text
    messages = server.of("agg")[-1].messages
    assert [m["content"] for m in messages if m["role"] == "tool"] == [
        f"r{number}" for number in range(parallel)
    ]
    (acting,) = [m for m in messages if m.get("tool_calls")]
    assert [c["id"] for c in acting["tool_calls"]] == [call.call_id for call in calls]
    assert not any("Use tools." in str(m["content"]) for m in messages)


def test_structured_output(client, named, server):
    told = client.responses.parse(
        model=named("structured responses"), input="hi", text_format=Weather, store=False
    )
    assert isinstance(told.output_parsed, Weather)
    assert server.of("agg")[0].body["response_format"]["type"] == "json_schema"


def test_images_and_sampling(client, mine, server):
    content = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "input_text", "text": "what is it?"},
    ]
    client.responses.create(
        model=mine, input=[{"role": "user", "content": content}], store=False, temperature=0.3,
        top_p=0.9, max_output_tokens=77, reasoning={"effort": "low"}, text={"verbosity": "high"},
    )  # fmt: skip
    assert f"data:image/png;base64,{PNG}" in json.dumps(server.of("a")[0].messages)
    body = server.of("agg")[0].body
    assert (body["temperature"], body["top_p"], body["verbosity"]) == (0.3, 0.9, "high")
    assert body["reasoning_effort"] == "low"
    assert 77 in (body.get("max_tokens"), body.get("max_completion_tokens"))


def test_a_cut_answer_is_incomplete(client, named):
    model = named("cut responses", aggregator="openai:agg?finish=length")
    told = client.responses.create(model=model, input="hi", store=False)
    assert (told.status, told.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    told, kinds = whole(client.responses.create(model=model, input="hi", store=False, stream=True))
    assert kinds[-1] == "response.incomplete"
    assert told.incomplete_details.reason == "max_output_tokens"


def test_a_conversation_of_stored_responses(client, mine, server):
    first = client.responses.create(model=mine, input="one", metadata={"a": "b"})
    second = client.responses.create(model=mine, input="two", previous_response_id=first.id)
    other = client.responses.create(model=mine, input="three", previous_response_id=first.id)
    assert other.previous_response_id == first.id
    said = [[m["content"] for m in call.messages] for call in server.of("a")]
    assert said == [["one"], ["one", "agg: one", "two"], ["one", "agg: one", "three"]]
    kept = client.responses.retrieve(second.id)
    assert kept.output_text == second.output_text
    assert kept.usage == second.usage
    assert [item.id for item in kept.output] == [item.id for item in second.output]
    assert client.responses.retrieve(first.id).metadata == {"a": "b"}
    client.responses.delete(first.id)
    for gone in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
    ):
        with pytest.raises(openai.NotFoundError, match="no stored response"):
            gone()
    with pytest.raises(openai.NotFoundError, match="MOA_RESPONSE_MINUTES"):
        client.responses.create(model=mine, input="four", previous_response_id=first.id)


@pytest.mark.parametrize("forged", [5, ["x"], {"a": 5}, {"a": None}, "x"])
def test_a_changed_record_of_a_response_is_read_without_the_change(
    client, mine, langgraph_server, forged
):
    first = client.responses.create(model=mine, input="one", metadata={"a": "b"})
    changed = {"asked": forged, "previous": forged, "model": forged, "created": forged}
    with get_sync_client(url=langgraph_server.url) as own:
        own.threads.update(str(uuid.UUID(first.id[5:])), metadata={"asked": forged})
        assert client.responses.retrieve(first.id).metadata == {}
        own.threads.update(str(uuid.UUID(first.id[5:])), metadata={**changed, "created": "9" * 11})
    assert client.responses.retrieve(first.id).output_text == first.output_text


WRONG = {
    "a long number of an item": (
        {"input": [{"type": "item_reference", "id": f"msg_{'0' * 32}_{'9' * 5000}"}]}, 404, "no stored",
    ),
    "an image of a system message": ({"input": [{"role": "system", "content": [
        {"type": "input_image", "image_url": "https://x.y/z"}]}]}, 400, "input.0.message.system.content.0"),
    "an image of an assistant": ({"input": [{"role": "assistant", "content": [
        {"type": "input_image", "image_url": "https://x.y/z"}]}]}, 400, "'refusal', not 'input_image'"),
    "a refusal of a user": ({"input": [{"role": "user", "content": [
        {"type": "refusal", "refusal": "x"}]}]}, 400, "not 'refusal'"),
    "a list of arguments": ({"input": [
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "[1]"}]},
        400, "input.0.function_call.arguments: it is not a JSON object."),
    "no input": ({"input": []}, 400, "input"),
    "a file": ({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "file:///etc/passwd"}]}]}, 400, "image_url"),
    "a private address": ({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "http://[::1]/x"}]}]}, 400, "private network"),
    "a tool of OpenAI's": ({"tools": [{"type": "web_search"}]}, 400, "tools.0"),
    "a conversation": ({"conversation": "conv_1"}, 400, "conversation: this server does not support"),
    "a prompt": ({"prompt": {"id": "pmpt_1"}}, 400, "prompt: this server does not support"),
    "in the background": ({"background": True}, 400, "background"),
    "an unknown response": ({"previous_response_id": "resp_x"}, 404, "no stored response"),
    "an unknown item": ({"input": [{"id": "msg_1"}]}, 404, "no stored item 'msg_1'"),
    "another kind of item": ({"input": [{"type": "computer_call", "id": "x"}]}, 400, "computer_call"),
    "proposers": ({"proposers": ["openai:x"]}, 400, "proposers"),
    "too many items": ({"input": [{"role": "user", "content": "hi"}] * 600}, 413, "MOA_MAX_MESSAGES"),
    "an unknown model": ({"model": "gpt-9"}, 404, "Unknown model"),
    "a result without a call": (
        {"input": [{"type": "function_call_output", "call_id": None, "output": "x"}]}, 400, "call_id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_and_calls_no_model(langgraph_server, mine, server, case):
    changes, status, says = WRONG[case]
    body = {"model": mine, "input": "hi", **changes}
    told = httpx.post(f"{langgraph_server.url}/v1/responses", json=body, timeout=30)
    assert told.status_code == status, told.text
    assert says in told.json()["error"]["message"]
    assert (
        "Input should be a valid string" not in told.json()["error"]["message"] or says == "call_id"
    )
    assert server.calls == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_run_says_why_and_is_not_repeated(langgraph_server, named, server, stream):
    down = named(f"down of responses {stream}", aggregator="openai:agg?status=401")
    with OpenAI(base_url=f"{langgraph_server.url}/v1", api_key="none", max_retries=3) as client:  # noqa: SIM117
        with pytest.raises(openai.InternalServerError, match="aggregator") as error:
            client.responses.create(model=down, input="hi", stream=stream)
    assert error.value.status_code == 502
    assert len(server.of("a")) == 1


def test_an_error_in_the_midst_of_a_stream_is_raised(client, langgraph_server, named, server):
    cut = named("cut in the midst", aggregator="openai:agg?cut=3&tps=5")
    server.answers["agg"] = "one two three four five six"
    with pytest.raises(openai.APIError, match="aggregator"):
        list(client.responses.create(model=cut, input="hi", stream=True))
    body = {"model": cut, "input": "hi", "stream": True}
    told = httpx.post(f"{langgraph_server.url}/v1/responses", json=body, timeout=30).text
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    error, failed = events[-2:]  # clients take the message from what comes first
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert "aggregator" in error["error"]["message"]
    assert failed["response"]["error"]["message"] == error["error"]["message"]
    assert failed["response"]["output"][0]["content"][0]["text"] == "one two three "


async def test_a_client_that_disconnects_cancels_the_run(langgraph_server, named, server):
    slow = named("slow of responses", aggregator="openai:agg?tps=5")
    server.answers["agg"] = "word " * 1000
    async with AsyncOpenAI(base_url=f"{langgraph_server.url}/v1", api_key="none") as client:
        stream = await client.responses.create(model=slow, input="hi", stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await stream.close()
    await eventually(lambda: server.of("agg")[0].disconnected)


@pytest.mark.parametrize("previous", [False, True])
async def test_langchains_client(langgraph_server, named, server, previous):
    tool = {"type": "function", "function": {"name": "search", "parameters": SEARCH["parameters"]}}
    model = ChatOpenAI(
        model=named(f"of ChatOpenAI {previous}", aggregator="openai:agg?steps=1"),
        base_url=f"{langgraph_server.url}/v1", api_key="none", use_responses_api=True,
        use_previous_response_id=previous,
    ).bind_tools([tool])  # fmt: skip
    question = HumanMessage("hi")
    called = await model.ainvoke([question])
    (call,) = called.tool_calls
    result = ToolMessage("found", tool_call_id=call["id"])
    chunks = [chunk async for chunk in model.astream([question, called, result])]
    told = chunks[0]
    for chunk in chunks[1:]:
        told += chunk
    assert told.text
    assert not told.tool_calls
    assert told.usage_metadata["output_tokens"] > 0


async def test_many_at_once_at_the_limit_are_all_answered(langgraph_server, mine, monkeypatch):
    url = f"{langgraph_server.url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        ask = [client.responses.create(model=mine, input=f"q{n}") for n in range(20)]
        told = await asyncio.gather(*ask)
        assert [t.output_text for t in told] == [f"agg: q{n}" for n in range(20)]
        again = client.responses.create(model=mine, input="x", previous_response_id=told[-1].id)
        assert (await again).output_text == "agg: x"


def test_a_failed_response_is_not_kept(langgraph_server, named):
    down = named("down and stored", aggregator="openai:agg?status=401")
    client = get_sync_client(url=langgraph_server.url)
    before = len(client.threads.search(limit=1000))
    body = {"model": down, "input": "hi"}
    assert httpx.post(f"{langgraph_server.url}/v1/responses", json=body).status_code == 502
    for _ in range(50):
        if len(client.threads.search(limit=1000)) <= before:
            break
        time.sleep(0.1)
    assert len(client.threads.search(limit=1000)) <= before


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_assistant_with_a_route_answers(langgraph_server, named, path, stream):
    route = {"model": "openai:cheap", "samples": 2}
    model = named(f"routed {path} {stream}", route=route)
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": model, "stream": stream, "input": "hi", "messages": messages, "max_tokens": 9}
    for name in ("messages", "max_tokens") if path == "responses" else ("input",):
        del body[name]
    told = httpx.post(f"{langgraph_server.url}/v1/{path}", json=body, timeout=30)
    assert told.status_code == 200, told.text
    assert "cheap" in told.text
    assert "error" not in told.text.replace('"error":null', "").replace('"error": null', "")


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
def test_parts_of_a_message_are_bounded(langgraph_server, mine, server, path):
    kind = "input_text" if path == "responses" else "text"
    content = [{"type": kind, "text": "x"}] * 2000
    messages = [{"role": "user", "content": content}]
    field = "input" if path == "responses" else "messages"
    body = {"model": mine, field: messages, **({"max_tokens": 9} if path == "messages" else {})}
    told = httpx.post(f"{langgraph_server.url}/v1/{path}", json=body, timeout=30)
    assert told.status_code == 413, told.text
    assert server.calls == []
