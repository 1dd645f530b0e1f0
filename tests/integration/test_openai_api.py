"""The OpenAI-compatible endpoint, driven by OpenAI's own clients."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest
from langgraph_sdk import get_sync_client
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from moa_graph.presets import PRESETS
from tests.fake_server import eventually
from tests.integration.cancelling import cancelled_elsewhere
from tests.integration.clients.clients import npm_packages

QUESTION = [{"role": "user", "content": "hi"}]
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the city's events.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


class Weather(BaseModel):
    city: str
    degrees: int
    sky: Literal["clear", "fog"]


@pytest.fixture(scope="module")
def mine(named):
    return named("mine", layers=3)


@pytest.fixture(scope="module")
def client(langgraph_server):
    with OpenAI(base_url=f"{langgraph_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def aclient(langgraph_server):
    url = f"{langgraph_server.url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_models_are_the_presets_and_the_assistants(client, mine):
    listed = {model.id: model for model in client.models.list()}
    assert {*PRESETS, "mixture", mine} <= set(listed)
    assert listed[mine].owned_by == "user"
    assert abs(listed[mine].created - time.time()) < 3600
    assert client.models.retrieve(mine).id == mine
    with pytest.raises(openai.NotFoundError, match="Unknown model 'nothing'"):
        client.models.retrieve("nothing")
    with pytest.raises(openai.NotFoundError, match="Unknown model 'two"):
        client.get("/models/two%0Alines%0A", cast_to=object)
    with pytest.raises(openai.NotFoundError, match=r"There is no /v1/x(\n|\\n)y here"):
        client.get("/x%0Ay", cast_to=object)


def test_an_answer_with_the_tokens_of_all_models(client, mine, server):
    answer = client.chat.completions.create(model=mine, messages=QUESTION)
    assert answer.model == mine
    assert answer.choices[0].message.content.startswith("agg: hi")
    assert answer.choices[0].finish_reason == "stop"
    assert len(server.calls) == 5
    told = sum(len(f"{call.label}: hi".split()) for call in server.calls)
    assert answer.usage.completion_tokens == told
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + told


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_no_part_of_an_answer(client, mine, server, stream):
    server.answer_all = "<think>\nSECRET or not?\n</think>\n\nIt is <b>4</b>."
    answer = client.chat.completions.create(model=mine, messages=QUESTION, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert text == "It is <b>4</b>."
    assert not any("SECRET" in str(call.messages) for call in server.calls)


@pytest.mark.parametrize("finish", ["SAFETY", "refusal", "guardrail_intervened"])
def test_a_content_filter_has_openais_name(client, named, finish):
    model = named(finish, aggregator=f"openai:agg?finish={finish}")
    answer = client.chat.completions.create(model=model, messages=QUESTION)
    assert answer.choices[0].finish_reason == "content_filter"


def test_sampling_that_a_provider_refuses_is_left_out(client, named, server):
    model = named("refusing", aggregator="openai:agg?refuses=top_p")
    answer = client.chat.completions.create(model=model, messages=QUESTION, top_p=0.5)
    assert answer.choices[0].message.content.startswith("agg: hi")
    assert [call.body.get("top_p") for call in server.of("agg")] == [0.5, None]


def test_the_model_may_be_an_assistants_id(client, langgraph_server, mine):
    (found,) = get_sync_client(url=langgraph_server.url).assistants.search(name=mine)
    answer = client.chat.completions.create(model=found["assistant_id"], messages=QUESTION)
    assert answer.choices[0].message.content.startswith("agg: hi")


def test_it_streams_from_the_aggregators_first_token(client, named, server):
    slow = named("slow", aggregator="openai:agg?tps=20")
    server.answers["agg"] = " ".join(["word"] * 20)
    came, usages = [], []
    stream = client.chat.completions.create(
        model=slow, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usages.append(chunk.usage)
        if chunk.choices and chunk.choices[0].delta.content:
            came.append((time.monotonic(), chunk.choices[0].delta.content))
    assert "".join(text for _, text in came) == server.answers["agg"]
    first = server.of("agg")[0].first_token
    assert came[0][0] - first < 0.5 < came[-1][0] - came[0][0]
    assert next(usage for usage in usages if usage).completion_tokens == 20 + 2 * 2
    assert usages[-1] is not None


def test_what_is_asked_for_reaches_the_aggregator_alone(client, mine, server):
    client.chat.completions.create(
        model=mine,
        messages=QUESTION,
        temperature=0.1,
        top_p=0.5,
        seed=7,
        max_tokens=99,
        stop=["END"],
        presence_penalty=0.5,
        user="42",
    )
    (call,) = server.of("agg")
    wanted = {
        "temperature": 0.1, "top_p": 0.5, "seed": 7, "max_completion_tokens": 99,
        "stop": ["END"], "presence_penalty": 0.5,
    }  # fmt: skip
    assert {name: call.body.get(name) for name in wanted} == wanted
    for call in server.of("a"):
        assert call.body["temperature"] == 0.7
        assert not {"seed", "stop", "top_p", "user"} & call.body.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_tools_make_a_round_trip(client, mine, server, stream):
    messages = [{"role": "user", "content": "What is on 'tonight'?"}]

    def ask():
        given = client.chat.completions.create(
            model=mine, messages=messages, tools=[SEARCH], stream=stream
        )
        if not stream:
            return given.choices[0].message.model_dump(exclude_none=True), given.choices[
                0
            ].finish_reason
        message, finish = {"role": "assistant"}, None
        for chunk in given:
            delta = chunk.choices[0].delta
            finish = chunk.choices[0].finish_reason or finish
            if delta.content:
                message["content"] = message.get("content", "") + delta.content
            for part in delta.tool_calls or ():
                calls = message.setdefault("tool_calls", [])
                if part.index == len(calls):
                    calls.append(part.model_dump(exclude={"index"}))
                else:
                    calls[part.index]["function"]["arguments"] += part.function.arguments
        return message, finish

    message, finish = ask()
    assert finish == "tool_calls"
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "search"
    assert json.loads(call["function"]["arguments"]) == {"query": "tonight"}
    assert all("tools" not in call.body for call in server.of("a"))
    messages += [
        message,
        {"role": "tool", "tool_call_id": call["id"], "content": "Jazz in the park."},
    ]
    message, finish = ask()
    assert finish == "stop"
    assert message["content"].startswith("agg: What is on")
    assert "Jazz in the park." in str(server.of("agg")[-1].messages)


def test_a_tool_can_be_required(client, mine, server):
    chosen = {"type": "function", "function": {"name": "search"}}
    for choice in ("required", chosen):
        answer = client.chat.completions.create(
            model=mine, messages=QUESTION, tools=[SEARCH], tool_choice=choice
        )
        assert answer.choices[0].message.tool_calls[0].function.name == "search"
    assert [call.body["tool_choice"] for call in server.of("agg")] == ["required", chosen]


def test_structured_output(client, mine, server):
    question = [{"role": "user", "content": "It is 12 degrees in 'SF'."}]
    answer = client.chat.completions.parse(model=mine, messages=question, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="SF", degrees=12, sky="clear")
    with client.chat.completions.stream(
        model=mine, messages=question, response_format=Weather
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Weather(city="SF", degrees=12, sky="clear")
    assert all("response_format" not in call.body for call in server.of("a"))


@pytest.mark.parametrize("stream", [False, True])
def test_tools_and_a_form_go_together(client, mine, server, stream):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    given = client.chat.completions.create(
        model=mine,
        messages=[{"role": "user", "content": "Where is 'SF'?"}],
        tools=[SEARCH],
        tool_choice="none",
        response_format=form,
        stream=stream,
    )
    if stream:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in given)
    else:
        said = given.choices[0].message.content
    assert json.loads(said) == {"city": "SF"}
    (call,) = server.of("agg")
    assert call.body["response_format"] == form
    assert call.body["tool_choice"] == "none"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_ends_all_model_calls(aclient, named, server, stream):
    hung = named(f"hung {stream}", ["openai:a?hang", "openai:b?hang"])
    asking = asyncio.create_task(
        aclient.chat.completions.create(model=hung, messages=QUESTION, stream=stream)
    )
    await eventually(lambda: server.of("a") and server.of("b"))
    asking.cancel()
    await eventually(lambda: all(call.disconnected for call in server.calls))
    assert server.of("agg") == []


async def test_a_client_that_goes_away_in_mid_answer_ends_it(aclient, named, server):
    slow = named("slow too", aggregator="openai:agg?tps=10")
    server.answers["agg"] = "word " * 1000
    stream = await aclient.chat.completions.create(model=slow, messages=QUESTION, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await eventually(lambda: server.of("agg")[0].disconnected)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_is_cancelled_elsewhere_is_an_error(
    langgraph_server, named, server, stream, bulk
):
    slow = named(f"cancelled {stream} {bulk}", aggregator="openai:agg?tps=20")
    server.answers["agg"] = "word " * 1000
    text, error = await cancelled_elsewhere(
        [langgraph_server.url], "none", slow, server, stream=stream, bulk=bulk
    )
    assert len(text) < 5000
    assert "cancelled" in str(error)
    assert error.code == "no_answer"
    assert len(server.of("a")) == 1
    if not stream:
        assert error.status_code == 502
        assert error.response.headers["X-Should-Retry"] == "false"


def after_call(arguments: str) -> list[dict]:
    """A conversation in which a tool was called with these arguments."""
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": arguments}}
    return [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "nothing"},
    ]


DEEP = json.loads('{"a":' * 250 + "1" + "}" * 250)
WRONG = {
    "no messages": ({"messages": []}, "messages"),
    "no such role": ({"messages": [{"role": "boss", "content": "hi"}]}, "messages.0"),
    "two answers": ({"n": 2}, "n"),
    "probabilities": ({"logprobs": True}, "logprobs"),
    "a context": ({"context": {"proposers": ["openai:x"]}}, "context"),
    "proposers": ({"proposers": ["openai:x"]}, "proposers"),
    "old functions": ({"functions": [{"name": "f"}]}, "functions: this server does not support"),
    "too hot": ({"temperature": 3}, "temperature"),
    "a tool choice without tools": ({"tool_choice": "required"}, "tool_choice"),
    "an unknown tool": (
        {"tools": [SEARCH], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice",
    ),
    "too many tokens": ({"max_tokens": 10**9}, "MOA_MAX_TOKENS"),
    "broken arguments": ({"messages": after_call("{")}, "messages"),
    "a list of arguments": (
        {"messages": after_call("[1]")},
        "messages.1.assistant.tool_calls.0.function.arguments: it is not a JSON object.",
    ),
    "a large number": ({"max_tokens": 2**64}, "max_tokens: the integer does not fit into 64 bits."),
    "deep parameters": (
        {"tools": [{**SEARCH, "function": {**SEARCH["function"], "parameters": DEEP}}]},
        "nested too deeply",
    ),
    "half a character in arguments": ({"messages": after_call('{"a": "\\ud800"}')}, "surrogate"),
    "a file": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        },
        "url",
    ),
    "a NUL": ({"messages": [{"role": "user", "content": "a\0b"}]}, "NUL"),
    "half a character": (
        {"tools": [{**SEARCH, "function": {**SEARCH["function"], "parameters": {"a": "\ud800"}}}]},
        "surrogate",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_told_and_calls_no_model(langgraph_server, mine, server, case):
    changes, says = WRONG[case]
    body = {"model": mine, "messages": QUESTION, **changes}
    answer = httpx.post(
        f"{langgraph_server.url}/v1/chat/completions",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert "https://errors.pydantic.dev" not in error["message"]
    assert server.calls == []


IGNORED = {
    "a base URL": ({"base_url": "http://evil"}, ["base_url"]),
    "a key": ({"api_key": "sk-mine"}, ["api_key"]),
    "a provider": ({"model_provider": "langchain_openai.ChatOpenAI"}, ["model_provider"]),
    "two": ({"best_of": 3, "guided_regex": "a+"}, ["best_of", "guided_regex"]),
    "a field of a tool": (
        {"tools": [{**SEARCH, "cache": 1}], "tool_choice": "none"},
        ["tools.0.cache"],
    ),
    "an odd name": ({'a"\r\nX-Evil: 1': 1}, ['a\\"\\r\\nX-Evil: 1']),
    "a name in Greek": ({"λ": 1}, ["\\u03bb"]),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", IGNORED)
def test_unknown_fields_are_ignored_and_named(langgraph_server, mine, server, case, stream):
    changes, named = IGNORED[case]
    body = {"model": mine, "messages": QUESTION, "stream": stream, **changes}
    answer = httpx.post(f"{langgraph_server.url}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    told = (
        json.dumps(", ".join(named))[1:-1]
        if named[0].isascii() and "\\" not in named[0]
        else named[0]
    )
    assert answer.headers["warning"] == f'299 moa-graph "Ignored: {told}"'
    assert "x-evil" not in answer.headers
    sent = json.dumps([call.body for call in server.calls])
    assert not any(name.split(".")[-1] in sent for name in named if name.isidentifier())


def test_sampling_that_the_aggregators_model_takes_is_passed_on(client, named, server):
    model = named("sampling")
    sampling = {"reasoning_effort": "low", "verbosity": "high", "logit_bias": {"7": -100}}
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    told = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, extra_body=extra, **sampling
    )
    assert "warning" not in told.headers
    (call,) = server.of("agg")
    assert {name: call.body[name] for name in {**sampling, **extra}} == {**sampling, **extra}
    assert not any(name in c.body for c in server.of("a") for name in {**sampling, **extra})


@pytest.mark.parametrize("name", ["reasoning_effort", "top_k"])
def test_sampling_that_it_does_not_take_is_left_out_and_named(client, named, server, name):
    model = named(f"without {name}", aggregator=f"openai:agg?refuses={name}")
    given = {"extra_body": {name: {"reasoning_effort": "low", "top_k": 5}[name]}}
    told = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, **given)
    assert told.parse().choices[0].message.content == "agg: hi"
    assert told.headers["warning"] == f'299 moa-graph "Ignored: {name}"'
    assert [name in call.body for call in server.of("agg")] == [True, False]


def test_an_unknown_model_is_told(client, server):
    with pytest.raises(openai.NotFoundError, match="Unknown model 'gpt-9'") as error:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model="00000000-0000-0000-0000-000000000000", messages=QUESTION
        )
    assert server.calls == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_run_has_its_status_and_says_why(client, named, stream):
    down = named(f"down {stream}", ["openai:a?status=401"])
    with pytest.raises(openai.InternalServerError, match="refused the API key") as error:
        client.chat.completions.create(model=down, messages=QUESTION, stream=stream)
    assert error.value.status_code == 502
    assert error.value.code == "NotEnoughProposals"
    down = named(f"agg down {stream}", aggregator="openai:agg?status=400")
    with pytest.raises(openai.InternalServerError, match="aggregator") as error:
        client.chat.completions.create(model=down, messages=QUESTION, stream=stream)
    assert error.value.code == "AggregationFailed"


def test_a_failed_run_is_not_paid_for_again_by_a_patient_client(langgraph_server, named, server):
    down = named("down for all", aggregator="openai:agg?status=400")
    with (
        OpenAI(base_url=f"{langgraph_server.url}/v1", api_key="none") as patient,
        pytest.raises(openai.InternalServerError),
    ):
        patient.chat.completions.create(model=down, messages=QUESTION)
    assert server.labels().count("a") == 1


def test_what_says_nothing_is_taken(client, mine, server):
    client.chat.completions.create(
        model=mine, messages=QUESTION, n=1, logprobs=False, logit_bias={}, tools=[],
        stop="a rather long text to stop at", extra_body={"top_logprobs": 0, "prediction": None},
    )  # fmt: skip
    assert server.of("agg")[0].body["stop"] == ["a rather long text to stop at"]


def test_a_call_without_arguments_can_be_sent_back(client, mine):
    answer = client.chat.completions.create(model=mine, messages=after_call(""))
    assert answer.choices[0].message.content.startswith("agg: hi")


def test_an_answer_cut_in_the_middle_is_an_error_of_the_stream(client, named, server):
    cut = named("cut", aggregator="openai:agg?cut=3")
    server.answers["agg"] = "one two three four five six"
    came = ""
    stream = client.chat.completions.create(model=cut, messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="aggregator"):  # noqa: PT012
        for chunk in stream:
            came += chunk.choices[0].delta.content or ""
    assert came == "one two three "


def test_a_conversation_keeps_its_roles(client, mine, server):
    client.chat.completions.create(
        model=mine,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}]},
            {"role": "assistant", "content": "agg: one"},
            {"role": "user", "content": "two"},
        ],
    )
    for call in server.of("a"):
        assert "Be brief." in str(call.messages)
        said = [m["content"] for m in call.messages if m["role"] != "system"]
        assert said[-2:] == ["agg: one", "two"]


NODE = """
import OpenAI from "openai";
const [, , baseURL, model] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "hi 'x'" }];
const tools = JSON.parse(process.env.TOOLS);
const out = {};
out.models = [];
for await (const model of client.models.list()) out.models.push(model.id);
out.whole = (await client.chat.completions.create({ model, messages })).choices[0].message.content;
out.streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
  out.streamed += chunk.choices[0]?.delta?.content ?? "";
out.tool = (await client.chat.completions.create({ model, messages, tools }))
  .choices[0].message.tool_calls[0].function;
const stream = client.chat.completions.stream({ model, messages, tools });
out.streamedTool = (await stream.finalMessage()).tool_calls[0].function;
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const form = { type: "json_schema", json_schema: { name: "place", schema } };
out.form = JSON.parse((await client.chat.completions.create({ model, messages,
  response_format: form })).choices[0].message.content);
try {
  await client.chat.completions.create({ model: "nothing", messages });
} catch (error) {
  out.error = [error.constructor.name, error.status, error.code];
}
console.log(JSON.stringify(out));
"""


@pytest.mark.services
def test_the_npm_client(langgraph_server, mine, tmp_path: Path):
    (tmp_path / "node_modules").symlink_to(npm_packages() / "node_modules")
    (tmp_path / "client.mjs").write_text(NODE)
    result = subprocess.run(
        ["node", "client.mjs", f"{langgraph_server.url}/v1", mine],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
        env=os.environ | {"TOOLS": json.dumps([SEARCH])},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    out = json.loads(result.stdout)
    assert mine in out["models"]
    assert out["whole"] == out["streamed"] == "agg: hi 'x'"
    assert out["tool"] == {"name": "search", "arguments": '{"query": "x"}'}
    assert json.loads(out["streamedTool"]["arguments"]) == {"query": "x"}
    assert out["form"] == {"city": "x"}
    assert out["error"] == ["NotFoundError", 404, "model_not_found"]
