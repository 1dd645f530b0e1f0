from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from moa_graph import AggregationFailed, CallPolicy, MoAError, Proposer, create_moa
from moa_graph.calling import retries as module
from moa_graph.calling.retries import can_pass, is_too_long, seconds_before_retry
from tests.nodes.test_nodes import run

QUESTION = {"messages": "What is a cat?"}


def http_error(status: int, headers: dict[str, str] | None = None, text: str = ""):
    request = httpx.Request("POST", "http://127.0.0.1/v1")
    response = httpx.Response(status, headers=headers, text=text, request=request)
    return httpx.HTTPStatusError(text or f"status {status}", request=request, response=response)


# --- which errors, and when ------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_statuses_that_can_pass(status):
    assert can_pass(http_error(status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
def test_statuses_that_cannot_pass(status):
    assert not can_pass(http_error(status))


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
        httpx.ReadTimeout("slow"),
        ConnectionResetError(),
        BrokenPipeError(),
        ModelRateLimitError(),
    ],
    ids=repr,
)
def test_lost_connections_can_pass_also_as_a_cause(error):
    assert can_pass(error)
    outer = RuntimeError("the client says so")
    outer.__cause__ = error
    assert can_pass(outer) or isinstance(error, ModelRateLimitError)


@pytest.mark.parametrize(
    "error", [ValueError("x"), MoAError("x"), ContextOverflowError("x"), KeyError("x")], ids=repr
)
def test_other_errors_cannot_pass(error):
    assert not can_pass(error)


def test_an_exhausted_quota_does_not_come_back():
    error = http_error(429)
    error.code = "insufficient_quota"
    assert not can_pass(error)


def test_a_prompt_that_is_too_long_is_told_from_other_bad_requests():
    assert is_too_long(ContextOverflowError("x"))
    assert is_too_long(http_error(400, text="This model's maximum context length is 8192 tokens"))
    assert not is_too_long(http_error(400, text="unknown parameter"))
    assert not is_too_long(http_error(500, text="context length"))


def test_the_wait_is_what_the_provider_asks_for_with_some_jitter():
    for headers in ({"retry-after": "2"}, {"retry-after-ms": "2000"}):
        waits = {seconds_before_retry(http_error(429, headers), 1) for _ in range(20)}
        assert len(waits) > 1
        assert all(2 <= wait <= 2.2 for wait in waits)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    assert 3.5 < seconds_before_retry(http_error(429, {"retry-after": later}), 1) < 5.6
    assert seconds_before_retry(http_error(429, {"retry-after": "3600"}), 1) is None


def test_without_a_word_the_wait_doubles_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.5)
    for headers in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "inf"}):
        error = http_error(503, headers)
        for retry, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (9, 8.0)):
            waits = {seconds_before_retry(error, retry) for _ in range(20)}
            assert len(waits) > 1
            assert all(0.75 * longest <= wait <= longest for wait in waits)


# --- in a run --------------------------------------------------------------------------------

MODES = ["invoke", "ainvoke", "stream", "astream"]


@pytest.mark.parametrize("own", [0, 1, 2, None])
@pytest.mark.parametrize("mode", MODES)
async def test_every_request_is_counted_whoever_repeats_it(chat, server, own, mode):
    model = chat("a?fail_first=2", max_retries=own)
    state = await run(create_moa([model, chat("b")], chat("agg")), mode, QUESTION)
    assert [(p["status"], p["attempts"]) for p in state["proposals"]] == [("ok", 3), ("ok", 1)]
    assert len(server.of("a")) == 3


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_retries_of_the_client_and_ours_are_not_multiplied(chat, server, mode):
    graph = create_moa([chat("a?status=503", max_retries=4), chat("b")], chat("agg"))
    state = await run(graph, mode, QUESTION)
    assert (state["proposals"][0]["status"], state["proposals"][0]["attempts"]) == ("failed", 5)
    assert len(server.of("a")) == 5


@pytest.mark.parametrize("count", [0, 1, 4])
async def test_the_graph_may_say_how_often(chat, server, count):
    graph = create_moa(
        [chat("a?status=500"), chat("b")], chat("agg"), calls=CallPolicy(retries=count)
    )
    state = await graph.ainvoke(QUESTION)
    assert state["proposals"][0]["attempts"] == count + 1 == len(server.of("a"))


@pytest.mark.parametrize("mode", MODES)
async def test_retry_after_is_honoured(chat, server, mode):
    graph = create_moa([chat("a?status=429&retry_after=0.6&times=1")], chat("agg"))
    state = await run(graph, mode, QUESTION)
    first, second = server.of("a")
    assert 0.6 <= second.started - first.ended < 1.5
    assert state["proposals"][0]["attempts"] == 2
    assert state["proposals"][0]["latency"] >= 0.6


async def test_fallbacks_and_retries_of_the_users_own_stay_theirs(chat, server):
    models = [
        Proposer(chat("down?status=500").with_fallbacks([chat("up")]), name="fallback"),
        Proposer(chat("x?status=500").with_retry(stop_after_attempt=2), name="retry"),
        Proposer(create_agent(chat("y?status=500"), tools=[]), name="agent"),
    ]
    state = await create_moa(models, chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "failed", "failed"]
    assert [len(server.of(label)) for label in ("down", "up", "x", "y")] == [1, 1, 2, 1]


async def test_a_function_is_repeated_when_its_connection_was_lost():
    calls = []

    async def flaky(messages):
        calls.append(messages)
        if len(calls) == 1:
            raise httpx.ReadError("reset")
        return AIMessage("here")

    graph = create_moa([RunnableLambda(flaky)], RunnableLambda(lambda m: AIMessage("done")))
    state = await graph.ainvoke(QUESTION)
    assert [(p["status"], p["attempts"]) for p in state["proposals"]] == [("ok", 2)]


async def test_the_aggregator_is_repeated_until_it_has_shown_something(chat, server):
    graph = create_moa([chat("a")], chat("agg?status=503&times=2"))
    tokens = [m.text async for m, _ in graph.astream(QUESTION, stream_mode="messages")]
    assert "".join(tokens) == "agg: What is a cat?"
    assert len(server.of("agg")) == 3

    server.reset()
    graph = create_moa([chat("a")], chat("agg?cut=2&times=1"))
    shown = []

    async def show():
        async for message, _ in graph.astream(QUESTION, stream_mode="messages"):
            shown.append(message.text)

    with pytest.raises(AggregationFailed) as caught:
        await show()
    assert "".join(shown) == "agg: What "
    assert [p["content"] for p in caught.value.proposals] == ["a: What is a cat?"]
    assert len(server.of("agg")) == 1


async def test_a_wait_does_not_hold_what_limits_concurrent_calls(chat, server):
    busy = Proposer(chat("busy?status=429&retry_after=1.5&times=1"), name="busy")
    others = [Proposer(chat(f"m{i}"), name=f"m{i}") for i in range(3)]
    graph = create_moa([busy, *others], chat("agg"), calls=CallPolicy(concurrent={"openai": 1}))
    started = time.monotonic()
    await asyncio.wait_for(graph.ainvoke(QUESTION), 10)
    assert all(c.ended - started < 1.4 for c in server.calls if c.label.startswith("m"))
