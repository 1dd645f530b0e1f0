"""Completions as plain data have the same requests, answers and errors as those of OpenAI's SDK."""

from __future__ import annotations

import functools
import json
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langchain_together import ChatTogether
from openai.resources.chat.completions import AsyncCompletions
from pydantic import BaseModel, Field

from moa_graph import _compat
from moa_graph.models import Model
from moa_graph.models.completions import PlainCompletions
from tests.mock_openai import completion, mock_openai, refusal

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


class Person(BaseModel):
    """A person."""

    name: str = Field(description="The name.")


@tool
def add(a: int) -> int:
    """Add."""
    return a


def plain(model: Any) -> Any:
    """The chat model with completions as plain data."""
    changed = _compat.with_clients(model, lambda _: {"max_retries": 0}, PlainCompletions)
    assert isinstance(changed.async_client, PlainCompletions)
    return changed


def with_choices(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=body)


def body_of(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    one = {"index": 0, "finish_reason": "stop", **more}
    made = [{**one, "message": {"role": "assistant", **message}} for message in messages]
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": made}


def as_kind(kind: str, text: str) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": kind}, content=text.encode())


ANSWERS = {
    "text": completion("hi"),
    "usage": completion("hi", usage=USAGE),
    "usage without details": completion("hi", usage={"prompt_tokens": 1, "completion_tokens": 2}),
    "fingerprint": completion("hi", system_fingerprint="f", service_tier="flex", usage=USAGE),
    "another model": completion("hi", model="m-2026"),
    "no content": with_choices(body_of({"content": None})),
    "tool calls": with_choices(body_of({"content": None, "tool_calls": [CALL, CALL]})),
    "broken tool call": with_choices(
        body_of({"tool_calls": [{**CALL, "function": {"name": "add", "arguments": "{"}}]})
    ),
    "function call": with_choices(body_of({"function_call": CALL["function"]})),
    "refusal": with_choices(body_of({"content": None, "refusal": "No."})),
    "two choices": with_choices(body_of({"content": "a"}, {"content": "b"})),
    "cut": with_choices(body_of({"content": "a"}, finish_reason="length")),
    "log probabilities": with_choices(
        body_of({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0}]})
    ),
    "unknown fields": with_choices({**body_of({"content": "a", "x": 1}, y=2), "z": 3}),
    "a call without arguments": with_choices(
        body_of({"content": None, "tool_calls": [{**CALL, "function": {"name": "now"}}]})
    ),
    "a call without a name": with_choices(
        body_of({"content": None, "tool_calls": [{**CALL, "function": {"arguments": "{}"}}]})
    ),
    "an empty refusal": with_choices(body_of({"content": "a", "refusal": ""})),
    "parsed": with_choices(body_of({"content": "a", "parsed": {"b": 1}})),
    "audio": with_choices(body_of({"content": None, "audio": {"id": "x", "data": "y"}})),
    "reasoning": with_choices(body_of({"content": "a", "reasoning_content": "b"})),
    "annotations": with_choices(body_of({"content": "a", "annotations": [], "audio": None})),
    "content of parts": with_choices(body_of({"content": [{"type": "text", "text": "a"}]})),
    "counts as strings": completion(
        "hi", usage={"prompt_tokens": "3", "completion_tokens": "4", "total_tokens": "7"}
    ),
    "empty usage": completion("hi", usage={}),
    "usage with more": completion("hi", usage={**USAGE, "cost": 0.1, "queue_time": 1.5}),
    "details of null": completion("hi", usage={**USAGE, "prompt_tokens_details": None}),
    "no model": with_choices({k: v for k, v in body_of({"content": "a"}).items() if k != "model"}),
    "no role": with_choices({**body_of(), "choices": [{"index": 0, "message": {"content": "a"}}]}),
    "no message": with_choices({**body_of(), "choices": [{"index": 0}]}),
    "an odd choice": with_choices({**body_of(), "choices": ["a", None]}),
    "a list": httpx.Response(200, json=[1]),
    "a page in Latin-1": httpx.Response(
        200, headers={"content-type": "text/html; charset=latin-1"}, content=b"<p>\xe9</p>"
    ),
    "no choices": with_choices({**body_of(), "choices": []}),
    "null choices": with_choices({**body_of(), "choices": None}),
    "without choices": with_choices({"id": "c"}),
    "an error with status 200": with_choices({"error": {"message": "overloaded"}}),
    "JSON that is said to be text": as_kind("text/plain", json.dumps(body_of({"content": "a"}))),
    "JSON of a kind": as_kind("application/x+json; charset=utf-8", completion("a").text),
    "no kind": httpx.Response(200, content=completion("a").content),
    "a page": as_kind("text/html", "<p>hi</p>"),
    "broken JSON": as_kind("application/json", '{"choices": ['),
    "nothing": as_kind("application/json", ""),
    "nothing of no kind": httpx.Response(200),
    **{f"status {status}": refusal("no", status) for status in (400, 401, 403, 404, 429, 500, 503)},
    "too long": refusal("context_length_exceeded: too many tokens"),
    "a redirection": httpx.Response(302, headers={"location": "http://o/other"}),
}


async def result(call: Any) -> Any:
    try:
        message = await call
    except Exception as error:
        text = str(error).partition("response keys")[0]
        return type(error), text, getattr(error, "status_code", None)
    said = message.model_dump(exclude={"id"})
    if said["additional_kwargs"].get("refusal", "") is None:
        del said["additional_kwargs"]["refusal"]  # the only field that LangChain leaves out
    return said


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_is_that_of_the_sdk(answer):
    def serve(*_: Any) -> httpx.Response:
        given = ANSWERS[answer]
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    typed = mock_openai(serve, max_retries=0)
    assert await result(plain(typed).ainvoke("hi")) == await result(typed.ainvoke("hi"))


def chunk(delta: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [choice],
    }


def part(**function: Any) -> dict[str, Any]:
    return {"index": 0, "function": function}


def _without(one: dict[str, Any], field: str) -> dict[str, Any]:
    choices = [{k: v for k, v in c.items() if k != field} for c in one["choices"]]
    return {**one, "choices": choices}


HI = [chunk({"role": "assistant", "content": ""}), chunk({"content": "h"}), chunk({"content": "i"})]
END = chunk({}, finish_reason="stop")
STREAMS = {
    "text": [*HI, END],
    "usage": [*HI, END, {**chunk(None), "choices": [], "usage": USAGE}],
    "fingerprint": [*HI, {**END, "system_fingerprint": "f", "service_tier": "flex"}],
    "tool calls": [
        chunk({"role": "assistant", "tool_calls": [{**part(name="add", arguments=""), "id": "c"}]}),
        chunk({"tool_calls": [part(arguments='{"a"')]}),
        chunk({"tool_calls": [part(arguments=": 1}")]}),
        END,
    ],
    "tool calls without an index": [chunk({"tool_calls": [CALL]}), END],
    "refusal": [chunk({"role": "assistant", "refusal": "No."}), END],
    "no delta": [*HI, chunk(None), END],
    "log probabilities": [chunk({"content": "a"}, logprobs={"content": []}), END],
    "an error under way": [*HI, {"error": {"message": "overloaded"}}],
    "unknown fields": [{**chunk({"content": "a", "x": 1}, y=2), "z": 3}, END],
    "without choices": [{"id": "c"}, END],
    "no field for the delta": [*HI, END, _without(chunk({}), "delta")],
    "a last chunk of the reason only": [*HI, _without(END, "delta")],
    "a filter's report": [
        *HI,
        END,
        {**_without(chunk({}), "delta"), "content_filter_results": {"hate": {}}},
    ],
    "tool calls without a function": [chunk({"tool_calls": [{"index": 0, "id": "c"}]}), END],
    "function call": [chunk({"function_call": {"arguments": "{}"}}), END],
    "empty usage": [*HI, END, {**chunk(None), "choices": [], "usage": {}}],
    "counts as strings": [*HI, END, {**chunk(None), "choices": [], "usage": {"total_tokens": "7"}}],
    "reasoning": [chunk({"content": "", "reasoning_content": "b"}), *HI, END],
    "no model": [{k: v for k, v in one.items() if k != "model"} for one in (*HI, END)],
    "null choices": [*HI, {**END, "choices": None}],
    "a list": [[1]],
    "nothing": [],
}


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("stream", STREAMS)
async def test_a_stream_is_that_of_the_sdk(stream, ends):
    events = [f"data: {json.dumps(one)}\n\n" for one in STREAMS[stream]]

    def serve(*_: Any) -> httpx.Response:
        return as_kind("text/event-stream", "".join(events) + "data: [DONE]\n\n" * ends)

    async def chunks(model: Any) -> Any:
        return [await result(_given(one)) async for one in model.astream("hi")]

    async def all_of(model: Any) -> Any:
        try:
            return await chunks(model)
        except Exception as error:
            return type(error), str(error)

    typed = mock_openai(serve, max_retries=0, stream_usage=True)
    assert await all_of(plain(typed)) == await all_of(typed)


async def _given(value: Any) -> Any:
    return value


REQUESTS: dict[str, dict[str, Any]] = {
    "nothing more": {},
    "sampling": {"temperature": 0.1, "top_p": 0.5, "seed": 1, "stop": ["x"], "n": 2},
    "tools": {"tools": [{"type": "function", "function": {"name": "add"}}], "tool_choice": "auto"},
    "headers": {"extra_headers": {"x-a": "b"}},
    "query": {"extra_query": {"a": "b"}},
    "body": {"extra_body": {"top_k": 3}},
    "timeout": {"timeout": 3.0},
    "unknown": {"top_k": 3},
    "a schema": {"response_format": {"type": "json_object"}},
    "a class": {"response_format": Person},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
}


OPENAI = functools.partial(ChatOpenAI, base_url="http://o/v1")
AZURE = functools.partial(AzureChatOpenAI, azure_endpoint="http://o", api_version="1")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("provider", [OPENAI, AZURE], ids=["OpenAI", "Azure"])
@pytest.mark.parametrize("arguments", REQUESTS)
async def test_a_request_is_that_of_the_sdk(arguments, provider, streaming):
    async def seen(change: Any) -> Any:
        requests: list[Any] = []

        def handle(request: httpx.Request) -> httpx.Response:
            timeout = request.extensions["timeout"]
            headers = {k: v for k, v in request.headers.items() if "raw-response" not in k}
            requests.append((str(request.url), headers, json.loads(request.content), timeout))
            return completion("{}")

        client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
        model = provider(
            model="m",
            api_key="k",
            max_retries=0,
            http_async_client=client,
            streaming=streaming,
        )
        ended = await result(change(model).ainvoke("hi", **REQUESTS[arguments]))
        return requests, ended if isinstance(ended, tuple) else "answered"

    assert await seen(plain) == await seen(lambda model: model)


async def test_what_is_built_on_completions_works():
    def serve(body: dict[str, Any], _: int) -> httpx.Response:
        if "tools" in body:
            return with_choices(body_of({"content": None, "tool_calls": [CALL]}))
        return completion('{"name": "Ada"}')

    model = plain(mock_openai(serve))
    called = await model.bind_tools([add]).ainvoke("hi")
    assert called.tool_calls[0]["args"] == {"a": 1}
    structured = model.with_structured_output(Person, method="json_schema")
    assert await structured.ainvoke("hi") == Person(name="Ada")
    answers = await model.abatch(["a", [HumanMessage("b")]])
    assert [answer.text for answer in answers] == ['{"name": "Ada"}'] * 2


async def test_headers_are_included_on_request():
    def serve(*_: Any) -> httpx.Response:
        return httpx.Response(200, headers={"x-a": "b"}, json=completion("hi").json())

    answer = await plain(mock_openai(serve, include_response_headers=True)).ainvoke("hi")
    assert answer.response_metadata["headers"]["x-a"] == "b"


async def test_text_is_plain_data():
    events = "".join(f"data: {json.dumps(one)}\n\n" for one in (*HI, END))

    def serve(body: dict[str, Any], _: int) -> httpx.Response:
        return as_kind("text/event-stream", events) if body.get("stream") else completion("hi")

    completions = plain(mock_openai(serve)).async_client
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = (await completions.with_raw_response.create(**asked)).parse()
    assert type(answer) is dict
    async with await completions.create(**asked, stream=True) as stream:
        assert [chunk async for chunk in stream] == [*HI, END]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("place", "method"),
    [(AsyncCompletions, "create"), (openai.AsyncOpenAI, "post"), (openai.AsyncOpenAI, "request")],
)
async def test_a_tracer_of_the_sdk_sees_typed_responses(place, method, streaming, monkeypatch):
    seen: list[str] = []
    own = getattr(place, method)

    @functools.wraps(own)
    async def traced(self: Any, *given: Any, **arguments: Any) -> Any:
        response = await own(self, *given, **arguments)
        seen.append(type(response).__name__)
        return response

    def serve(body: dict[str, Any], _: int) -> httpx.Response:
        if not body.get("stream"):
            return completion("hi")
        return as_kind("text/event-stream", f"data: {json.dumps(HI[1])}\n\ndata: [DONE]\n\n")

    monkeypatch.setattr(place, method, traced)
    typed = mock_openai(serve, streaming=streaming)
    model = plain(typed)
    for one in (typed, model):
        assert (await one.ainvoke("hi")).text
    assert seen
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        (ChatOpenAI(model="a", api_key="k"), True),
        (ChatTogether(model="a", api_key="k"), True),
        (
            AzureChatOpenAI(model="a", api_key="k", api_version="1", azure_endpoint="http://o"),
            True,
        ),
        (type("Other", (ChatOpenAI,), {})(model="a", api_key="k"), True),
        (
            type("Typed", (ChatOpenAI,), {"_create_chat_result": lambda *_: None})(
                model="a", api_key="k"
            ),
            False,
        ),
    ],
)
def test_models_that_read_the_sdks_objects_keep_them(model, takes):
    assert _compat.takes_plain_completions(model) is takes


@pytest.mark.parametrize(
    ("given", "is_plain"),
    [("openai:a", True), ("together:a", True), (ChatOpenAI(model="a", api_key="k"), False)],
)
async def test_models_from_strings_use_them(given, is_plain, monkeypatch):
    for name in ("OPENAI_API_KEY", "TOGETHER_API_KEY"):
        monkeypatch.setenv(name, "sk-0123456789abcdef")
    model = await Model(given, "model").here()
    assert isinstance(model.async_client, PlainCompletions) is is_plain
