"""Connections of models that are made from strings."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading
import warnings

import openai
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from moa_graph import CallPolicy, Layer, Proposer, create_moa
from moa_graph.models import Model, transport
from tests.fake_server import eventually

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def endpoint(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def http_of(model) -> object:
    return model.root_async_client._client


def is_fast(model) -> bool:
    return any(http_of(model) is connections.client for connections in transport._all)


@pytest.mark.parametrize(
    ("given", "params", "environment", "fast"),
    [
        ("openai:a", {}, {}, True),
        ("together:a", {"temperature": 0.1}, {}, True),
        ("openai:a", {"http_async_client": openai.DefaultAsyncHttpxClient()}, {}, False),
        ("openai:a", {"http_socket_options": ()}, {}, False),
        ("openai:a", {"openai_proxy": "http://127.0.0.1:9"}, {}, False),
        ("openai:a", {}, {"OPENAI_PROXY": "http://127.0.0.1:9"}, False),
        ("openai:a", {}, {"https_proxy": "http://127.0.0.1:9"}, False),
        ("openai:a", {}, {"ALL_PROXY": "http://127.0.0.1:9"}, False),
        (ChatOpenAI(model="a", api_key="sk-0123456789abcdef"), {}, {}, False),
    ],
)
async def test_models_from_strings_are_fast_unless_connections_were_chosen(
    given, params, environment, fast, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model = await Model(given, "model", **params).here()
    assert is_fast(model) is fast


async def test_without_the_extra_the_sdk_has_its_own_connections(monkeypatch):
    transport._is_available.cache_clear()
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    assert not is_fast(await Model("openai:a", "model").here())
    transport._is_available.cache_clear()


async def test_an_sdk_without_this_transport_is_no_error(monkeypatch):
    def missing(*_):
        raise RuntimeError("must have installed the package with the `aiohttp` extra")

    transport._is_available.cache_clear()
    monkeypatch.setattr(transport, "client_through", missing)
    assert not is_fast(await Model("openai:a", "model").here())
    transport._is_available.cache_clear()


def test_models_share_one_client_in_each_event_loop(server):
    names = ["openai:a", "openai:b", "together:c"]
    models = [Model(name, "model") for name in names]

    async def clients() -> set[int]:
        found = [http_of(await model.here()) for model in models]
        kept.append(found)
        return {id(client) for client in found}

    kept: list = []
    first, second = asyncio.run(clients()), asyncio.run(clients())
    assert len(first) == len(second) == 1
    assert first != second
    assert sum(loop.is_closed() for loop in transport._shared) <= 1, "closed loops are forgotten"


async def test_calls_of_one_host_use_its_connections_again(server):
    moa = create_moa(["openai:a", "openai:b"], "openai:agg")
    for _ in range(5):
        await moa.ainvoke({"messages": "hi"})
    session = transport._shared[asyncio.get_running_loop()].session
    (connections,) = session.connector._conns.values()
    assert len(connections) == 2


async def test_a_peer_that_is_gone_is_noticed():
    with transport._socket((socket.AF_INET, socket.SOCK_STREAM, 0)) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_a_cancelled_call_closes_its_connection(server):
    moa = create_moa([Proposer("openai:a?latency=30", name="slow")], "openai:agg")
    task = asyncio.create_task(moa.ainvoke({"messages": "hi"}))
    await eventually(lambda: server.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    session = transport._shared[asyncio.get_running_loop()].session
    await eventually(lambda: not session.connector._acquired)


def test_event_loops_in_several_threads_do_not_meet(server):
    moa = create_moa(["openai:a", "openai:b"], "openai:agg")
    answers: list[str] = []

    def ask() -> None:
        for _ in range(3):
            state = asyncio.run(moa.ainvoke({"messages": "hi"}))
            answers.append(state["messages"][-1].text)
        answers.append(moa.invoke({"messages": "hi"})["messages"][-1].text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert all(answer.startswith("agg:") for answer in answers)


def test_a_users_own_client_through_aiohttp_works_in_several_event_loops(server):
    model = ChatOpenAI(model="a", http_async_client=openai.DefaultAioHttpClient())
    moa = create_moa([model], model)
    for _ in range(2):
        assert asyncio.run(moa.ainvoke({"messages": "hi"}))["messages"][-1].text
    assert moa.invoke({"messages": "hi"})["messages"][-1].text


ENDS = {
    "sync and async": (
        "moa.invoke(QUESTION); asyncio.run(moa.ainvoke(QUESTION)); moa.invoke(QUESTION)"
    ),
    "loop that is never closed": (
        "loop = asyncio.new_event_loop(); loop.run_until_complete(moa.ainvoke(QUESTION))"
    ),
    "stream that is left": """
        async def first():
            async for _ in moa.astream(QUESTION, stream_mode="messages"):
                return
        asyncio.run(first())
    """,
    "cancelled": """
        async def cut():
            task = asyncio.create_task(slow.ainvoke(QUESTION))
            await asyncio.sleep(0.3)
            task.cancel()
        asyncio.run(cut())
    """,
    "exit inside": """
        async def leave():
            await moa.ainvoke(QUESTION)
            raise SystemExit(0)
        asyncio.run(leave())
    """,
    "fork": """
        import os
        moa.invoke(QUESTION)
        if (child := os.fork()) == 0:
            assert asyncio.run(moa.ainvoke(QUESTION))["messages"][-1].text
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
    """,
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_said_about_connections_at_the_end(end, server):
    script = f"""
import asyncio, sys
from moa_graph import create_moa

QUESTION = {{"messages": "hi"}}
moa = create_moa(["openai:a", "openai:b"], "openai:agg")
slow = create_moa(["openai:a?latency=20"], "openai:agg")
{textwrap.dedent(ENDS[end])}
"""
    ended = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LANGSMITH_TRACING": "false"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "nclosed" not in ended.stderr
    assert "Error" not in ended.stderr


def test_nothing_is_printed_about_loops_that_are_closed_at_once(server, capfd):
    moa = create_moa(["openai:a", "openai:b"], "openai:agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(moa.ainvoke({"messages": "hi"}))
            loop.close()
            del loop
            gc.collect()
        asyncio.run(moa.ainvoke({"messages": "hi"}))
        gc.collect()
    assert not any(one.is_over for one in transport._all[:-1]), "closed loops are forgotten"
    assert "nclosed" not in "".join(capfd.readouterr())


class _ClosesAtOnce:
    """A server that closes every connection without an answer."""

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._close, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()


async def ending(model) -> tuple:
    """How a proposer's call ends."""
    moa = create_moa(
        Layer([RunnableLambda(lambda _: "fine"), Proposer(model, name="b", timeout=1)]),
        RunnableLambda(lambda _: "answer"),
        calls=CallPolicy(retries=1),
    )
    state = await moa.ainvoke({"messages": "hi"})
    (proposal,) = [p for p in state["proposals"] if p["proposer"] == "b"]
    return proposal["status"], proposal["attempts"], proposal["error"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        "status=429&retry_after=0.01",
        "status=429&retry_after=0.01&times=1",
        "status=500",
        "status=400",
        "status=401",
        "status=302",
        "cut=1",
        "cut=1&times=1",
        "hang",
        "malformed",
        "empty",
    ],
)
async def test_a_fault_ends_as_on_the_sdks_own_connections(fault, stream, server):
    endings = []
    for model in (
        Model(f"openai:b?{fault}", "model", streaming=stream),
        ChatOpenAI(model=f"b?{fault}", streaming=stream),
    ):
        server.reset()
        endings.append((await ending(model), len(server.of("b"))))
    assert endings[0] == endings[1]


@pytest.mark.parametrize("where", ["closed at once", "refused", "unknown host"])
async def test_a_failed_connection_is_no_timeout(where, monkeypatch):
    async with _ClosesAtOnce() as closing:
        urls = {"closed at once": closing, "refused": "http://127.0.0.1:9/v1"}
        monkeypatch.setenv("OPENAI_BASE_URL", urls.get(where, "http://no-host.invalid/v1"))
        status, attempts, error = await ending("openai:b")
    assert (status, attempts) == ("failed", 2)
    assert "onnection" in error
    assert "timed out" not in error
