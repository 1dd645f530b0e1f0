from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI

from moa_graph.calling import retries
from moa_graph.strategies import names
from tests.fake_server import FakeServer

PREFIXES = ("HF_", "LANGSMITH_", "LANGCHAIN_", "MOA_", "OPENAI_", "TOGETHER_", "AWS_", "AZURE_")
ChatModelFactory = Callable[..., ChatOpenAI]


@pytest.fixture(autouse=True)
def _no_keys_and_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither find a key nor send a trace."""
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait as long as they do for real providers."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it, so no test depends on those before it."""
    for place, named in names.STRATEGIES.items():
        monkeypatch.setitem(names.STRATEGIES, place, dict(named))


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Free nothing meanwhile: in a deep recursion, finalizers of what is freed would fail."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def _server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def server(_server: FakeServer) -> FakeServer:
    _server.reset()
    return _server


@pytest.fixture(scope="session")
def _clients() -> Iterator[dict[str, Any]]:
    with httpx.Client() as client:
        yield {"http_client": client, "http_async_client": httpx.AsyncClient()}


@pytest.fixture
def chat(server: FakeServer, _clients: dict[str, Any]) -> ChatModelFactory:
    """`chat("alpha?latency=0.2")`: that model of the fake server, as a LangChain chat model."""

    def make(model: str, **kwargs: object) -> ChatOpenAI:
        defaults = {"api_key": "sk-test-0123456789", "max_retries": 0, "stream_usage": True}
        return ChatOpenAI(model=model, base_url=server.url, **(defaults | _clients | kwargs))

    return make
