"""The translation of the protocols' requests and of replies, without a server."""

from __future__ import annotations

import pytest

from moa_graph.server.protocols.blocks import blocks
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.ordering import check_pairs, ordered
from moa_graph.server.protocols.reply import CallDelta, Reply, TextDelta
from moa_graph.server.protocols.responses.request import ResponsesRequest

USER = {"role": "user", "content": "u"}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}


def acts(*ids, text=""):
    calls = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if ids else {})}


def result(call):
    return {"role": "tool", "tool_call_id": call, "content": f"r{call}"}


def short(messages):
    """Each message in a word: who, and its calls."""
    return [
        m["role"][0] + "".join(c["id"] for c in m.get("tool_calls", ())) + m.get("tool_call_id", "")
        for m in messages
    ]


ORDERS = {
    "as it should be": ([USER, acts("1"), result("1"), USER], ["u", "a1", "t1", "u"]),
    "calls one by one": ([USER, acts("1"), acts("2"), result("1"), result("2")], ["u", "a12", "t1", "t2"]),
    "text, then a call": ([acts(text="x"), acts("1"), result("1")], ["a1", "t1"]),
    "text between a call and its result": (
        [acts("1"), acts(text="x"), result("1")], ["a1", "t1"],
    ),
    "media between results": (
        [acts("1", "2"), result("1"), IMAGE, result("2"), USER], ["a12", "t1", "t2", "u", "u"],
    ),
    "a call after a result of the same turn": (
        [acts("1"), result("1"), acts("2"), result("2")], ["a1", "t1", "a2", "t2"],
    ),
    "a call without a result": ([acts("1"), USER, acts(text="x"), USER], ["a1", "u", "a", "u"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERS)
def test_results_follow_their_calls(case):
    given, expected = ORDERS[case]
    assert short(ordered(given)) == expected
    check_pairs(ordered(given), "input")


def test_joined_messages_keep_their_text():
    (message,) = ordered([acts(text="one"), acts("1", text="two")])
    assert [part["text"] for part in message["content"]] == ["one", "two"]


@pytest.mark.parametrize("given", [[USER, result("1")], [result("1"), acts("1")]])
def test_a_result_without_a_call_is_refused(given):
    with pytest.raises(ApiError, match="has no call before it"):
        check_pairs(ordered(given), "input")


CHOICES = [
    {"type": "function", "name": "g"},
    {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]},
]


@pytest.mark.parametrize("tools", [[], [{"type": "function", "name": "f", "parameters": {}}]])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_of_a_tool_that_is_not_there_is_refused(choice, tools):
    with pytest.raises(ValueError, match="names 'g', which is not in tools"):
        ResponsesRequest.model_validate(
            {"model": "m", "input": "hi", "tools": tools, "tool_choice": choice}
        )


# --- replies -------------------------------------------------------------------------------------


class Event:
    def __init__(self, event, data):
        self.event, self.data = event, data


def chunk(*calls, text=""):
    """A chunk of the answer: each call is (index, id, name, arguments)."""
    keys = ("index", "id", "name", "args")
    chunks = [dict(zip(keys, call, strict=True)) for call in calls]
    message = {"type": "AIMessageChunk", "content": text, "tool_call_chunks": chunks}
    return Event("messages", [message, {"langgraph_node": "aggregator", "tags": []}])


def answer(*calls, finish="tool_calls", **more):
    """The update with the whole answer: each call is (id, name, arguments)."""
    keys = ("id", "name", "args")
    message = {
        "type": "ai", "content": "", "response_metadata": {"finish_reason": finish},
        "tool_calls": [{**dict(zip(keys, call, strict=True)), "type": "tool_call"} for call in calls],
    }  # fmt: skip
    return Event("updates", {"aggregator": {"messages": [message], **more}})


async def replied(*events):
    async def stream():
        for event in events:
            yield event

    reply = Reply(stream())
    deltas = [delta async for delta in reply.deltas()]
    return reply, deltas


async def test_a_call_that_was_cut_is_told_as_cut():
    reply, _ = await replied(
        chunk((0, "1", "write", '{"path": "/home/us')),
        answer(("1", "write", {"path": "/home/us"}), finish="length"),
    )
    assert reply.finish == "length"
    (call,) = reply.calls
    assert call.arguments == '{"path": "/home/us'


async def test_calls_with_one_index_and_several_ids_are_several():
    reply, _ = await replied(
        chunk((0, "1", "f", '{"a":1}')),
        chunk((0, "2", "f", '{"b":')),
        chunk((0, None, None, "2}")),
        answer(("1", "f", {"a": 1}), ("2", "f", {"b": 2})),
    )
    assert [(c.id, c.arguments) for c in reply.calls] == [("1", '{"a":1}'), ("2", '{"b":2}')]


async def test_a_call_without_an_id_gets_one():
    reply, deltas = await replied(
        chunk((0, None, "f", "{")), chunk((0, None, None, "}")), answer(("", "f", {}))
    )
    (call,) = reply.calls
    assert call.id
    assert [delta.id for delta in deltas] == [call.id, None]


@pytest.mark.parametrize("written", [[], {"value": [], "type": "__overwrite__"}, None])
async def test_a_node_may_overwrite_records(written):
    reply, _ = await replied(answer(finish="stop", proposals=written, decisions=written))
    assert reply.usage is None


async def test_interleaved_calls_are_blocks_one_after_the_other():
    async def deltas():
        yield TextDelta("one ")
        yield CallDelta(0, "1", "f", '{"a"')
        yield CallDelta(1, "2", "g", '{"b"')
        yield TextDelta("two")
        yield CallDelta(0, None, None, ":1}")
        yield CallDelta(1, None, None, ":2}")

    changes = [change async for change in blocks(deltas())]
    told: list[tuple[str, str]] = []
    opened = None
    for change in changes:
        if change.change == "start":
            assert opened is None
            opened = change.block
            told.append((change.block.name or change.block.kind, ""))
        elif change.change == "piece":
            assert change.block is opened
            told[-1] = (told[-1][0], told[-1][1] + change.piece)
        else:
            opened = None
    assert told == [("text", "one "), ("f", '{"a":1}'), ("g", '{"b":2}'), ("text", "two")]
