"""The reply of a run from its events, as LangGraph Server and Aegra stream them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langgraph_sdk.schema import StreamPart

from moa_graph.server.protocols import reply as replies
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.reply import CallDelta, Reply, TextDelta

USAGE = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
START = StreamPart("metadata", {"run_id": "1", "attempt": 1})
END = StreamPart("end", {"status": "success"})
CALL = {"id": "1", "name": "search", "args": {"query": "x"}}


def chunk(text: str = "", **fields: Any) -> StreamPart:
    message = {"type": "AIMessageChunk", "content": text, **fields}
    return StreamPart("messages", [message, {"langgraph_node": "aggregator"}])


def arguments(text: str) -> StreamPart:
    part = {"index": 0, "id": None, "name": None, "args": text}
    return chunk(tool_call_chunks=[part])


def proposal(**more: Any) -> StreamPart:
    return StreamPart("updates", {"layer_1_a": {"proposals": [{"usage": USAGE}]}, **more})


def answer(text: str, **fields: Any) -> StreamPart:
    message = {"type": "ai", "content": text, "usage_metadata": USAGE, **fields}
    return StreamPart("updates", {"aggregator": {"messages": [message]}})


async def read(*events: StreamPart, stream: bool) -> tuple[Reply, str]:
    async def all_events():
        for event in events:
            yield event

    reply = Reply(all_events())
    if stream:
        await reply.begin(9)
    deltas = [delta async for delta in reply.deltas()]
    pieces = [d.text if isinstance(d, TextDelta) else d.arguments for d in deltas]
    assert all(isinstance(delta, TextDelta | CallDelta) for delta in deltas)
    return reply, "".join(pieces)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_starts_again_before_its_answer_is_whole(stream):
    cached = {"__metadata__": {"cached": True}}
    events = (
        START,
        proposal(),
        START,
        proposal(**cached),
        chunk("one "),
        chunk("two"),
        answer("one two"),
    )
    reply, text = await read(*events, END, stream=stream)
    assert text == reply.text == "one two"
    assert reply.usage == {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


async def test_a_stream_that_starts_again_in_mid_answer_is_an_error():
    events = START, chunk("one "), START, chunk("one "), chunk("two"), answer("one two"), END
    reply, _ = await read(*events, stream=False)
    assert reply.text == "one two"
    with pytest.raises(ApiError, match="started the answer again") as error:
        await read(*events, stream=True)
    assert error.value.status == 502


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_made_again_is_told_once(stream):
    events = START, chunk("one "), chunk("two"), answer("one two")
    reply, text = await read(*events, *events[:-1], answer("another"), END, stream=stream)
    assert text == reply.text == "one two"
    assert reply.usage == USAGE


LOSSES = {
    "the end": ([chunk("one ")], answer("one two")),
    "the middle": ([chunk("one "), chunk("three")], answer("one two three")),
    "arguments": (
        [arguments('{"query"'), arguments('"x"}')],
        answer("", tool_calls=[CALL]),
    ),
    "a call": ([chunk("one")], answer("one", tool_calls=[CALL])),
}


@pytest.mark.parametrize("what", LOSSES)
async def test_a_stream_that_has_lost_events_is_an_error_on_aegra(monkeypatch, what):
    monkeypatch.setattr(replies, "on_aegra", lambda: True)
    pieces, whole = LOSSES[what]
    with pytest.raises(ApiError, match="not whole") as error:
        await read(START, *pieces, whole, END, stream=True)
    assert error.value.status == 502
    reply, _ = await read(START, *pieces, whole, END, stream=False)
    message = whole.data["aggregator"]["messages"][0]
    assert reply.text == message["content"]
    calls = [(call.id, call.name, json.loads(call.arguments)) for call in reply.calls]
    assert calls == [(c["id"], c["name"], c["args"]) for c in message.get("tool_calls", ())]
    assert reply.usage == USAGE


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([chunk("one "), chunk(" two\n")], answer("one two")),
        ([arguments('{"query": '), arguments('"x"}')], answer("", tool_calls=[CALL])),
        (
            [arguments('{"query": "x", "more": ["y')],
            answer("", tool_calls=[{**CALL, "args": {"query": "x", "more": ["y"]}}]),
        ),
        ([arguments("{oops")], answer("", invalid_tool_calls=[{**CALL, "args": "{oops"}])),
        ([], answer("one")),
    ],
)
async def test_a_whole_stream_is_none(monkeypatch, pieces, whole):
    monkeypatch.setattr(replies, "on_aegra", lambda: True)
    reply, text = await read(START, *pieces, whole, END, stream=True)
    assert text
    assert reply.usage == USAGE


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_ends_without_an_answer_is_an_error(stream):
    interrupted = StreamPart("end", {"status": "interrupted"})
    for events in ([START, interrupted], [START, proposal(), chunk("one "), interrupted], []):
        with pytest.raises(ApiError, match="cancelled") as error:
            await read(*events, stream=stream)
        assert error.value.status == 502
        assert error.value.response({"path": "/v1/x"}).headers["X-Should-Retry"] == "false"
