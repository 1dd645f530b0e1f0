"""The switch of the tool for MCP clients, and the parts that need no server."""

from __future__ import annotations

import runpy
import sys

import httpx
import pytest
from mcp import Client, MCPError

from moa_graph.presets import PRESETS
from moa_graph.server import app, guard, settings
from moa_graph.server.mcp_api import protocol, runs
from moa_graph.server.mcp_api.runs import Followed, Runs, call_id
from moa_graph.server.mcp_api.tool import mcp_server
from moa_graph.server.settings import Settings


@pytest.fixture
def switched(monkeypatch):
    """`switched(on, module)`: the names of a module that is run with that setting."""

    def switch(on: bool, module):
        monkeypatch.setattr(settings, "SETTINGS", Settings(mcp=on))
        return runpy.run_path(module.__file__)

    return switch


def paths(names) -> list[str]:
    return [getattr(route, "path", "") for route in names["app"].routes]


def test_it_is_off_unless_it_is_switched_on(switched, monkeypatch):
    assert Settings().mcp is False
    monkeypatch.setenv("MOA_MCP", "1")
    assert Settings().mcp is True
    for path in ("/mcp", "/mcp/"):
        assert path in paths(switched(True, app))
        assert switched(True, guard)["_OFFERED"].fullmatch(path)
        assert path not in paths(switched(False, app))
        assert not switched(False, guard)["_OFFERED"].fullmatch(path)


def test_without_it_the_package_is_not_needed(switched, monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == "mcp" or name.startswith("moa_graph.server.mcp_api"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)  # as if it were not installed
    switched(False, app)
    with pytest.raises(ImportError, match=r"MOA_MCP=1 .* pip install 'moa-graph\[mcp\]'"):
        switched(True, app)


ERRORS = {
    None: None,
    "RateLimitError: 429, try later": "RateLimitError",
    "TimeoutError": "TimeoutError",
    "no answer within 5 s (the proposer's timeout)": "no answer within 5 s",
    "the provider failed in the middle of the answer (X: secret)": (
        "the provider failed in the middle of the answer"
    ),
    "the answer was empty": "the answer was empty",
    "OpenAIBadRequestError: (400) {'error': 'secret'}": "OpenAIBadRequestError",
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_failed_proposer_has_a_kind_of_error_and_not_its_text(error):
    record = {
        "layer": 2,
        "proposer": "a",
        "model": "a-1",
        "content": "an answer",
        "status": "failed" if error else "ok",
        "error": error,
    }
    known = protocol.outcome(record)
    assert known.error == ERRORS[error]
    assert "secret" not in known.model_dump_json()
    assert "an answer" not in known.model_dump_json()


def test_a_long_list_of_names_is_cut():
    assert protocol.listed(["a", "b"]) == "'a', 'b'"
    assert protocol.listed([str(n) for n in range(60)]).endswith("'48', '49' and 10 more")


STEPS = {
    "together": None,
    "self-moa": None,
    "moa": None,
    "of two layers": {"proposers": ["openai:a", {"model": "openai:b", "samples": 3}]},
    "of four layers": {"proposers": ["openai:a", "openai:b"], "layers": 4},
    "of its own layers": {"proposers": [["openai:a", "openai:b"], {"proposers": ["openai:c"]}]},
}
COUNTS = {
    "together": 5,
    "self-moa": 7,
    "moa": 13,
    "of two layers": 5,
    "of four layers": 7,
    "of its own layers": 4,
}


@pytest.mark.parametrize("name", STEPS)
async def test_the_steps_of_a_mixture_are_its_proposals_and_the_answer(monkeypatch, name):
    async def models(self):
        return [
            (known, {"assistant_id": known[::-1], "context": context, "config": {}})
            for known, context in STEPS.items()
            if known not in PRESETS
        ]

    monkeypatch.setattr(Runs, "models", models)
    server = Runs.__new__(Runs)
    assert await server.steps(name) == COUNTS[name]
    if name not in PRESETS:
        assert await server.steps(name[::-1]) == COUNTS[name]
    assert await server.steps("nothing") is None


class Event:
    def __init__(self, data):
        self.event, self.data = "updates", data


def answered(proposer, status="ok", layer=1):
    record = {
        "layer": layer,
        "proposer": proposer,
        "model": "m",
        "content": "x",
        "status": status,
        "error": None if status == "ok" else "no answer within 5 s",
    }
    return Event({f"layer_{layer}_{proposer}": {"proposals": [record]}})


@pytest.mark.parametrize("steps", [None, 3, 9])
async def test_progress_never_goes_back_or_beyond_the_end(steps):
    sent = [
        answered("a"),
        answered("a"),  # an edit of the same record
        answered("b", "timed_out"),
        Event({"layer_1": None}),
        answered("c"),
        answered("a", layer=2),
        Event({"aggregator": {"messages": [{"type": "ai", "content": "x"}]}}),
    ]

    async def events():
        for event in sent:
            yield event

    told = []

    async def tell(done, steps, message):
        told.append((done, steps, message))

    followed = Followed(events(), tell, steps)
    assert [event async for event in followed.events()] == sent
    done = [step[0] for step in told]
    assert done == sorted(set(done))
    assert done[:4] == [1, 2, 3, 4]
    assert done[-1] == max(5, steps or 0)
    assert all(step[1] is None if steps is None else step[0] <= step[1] for step in told)
    assert told[1][2] == "Layer 1: b timed out (no answer within 5 s)."
    assert [(o.layer, o.proposer) for o in followed.outcomes] == [
        (1, "a"), (1, "b"), (1, "c"), (2, "a"),
    ]  # fmt: skip


def test_calls_have_ids_of_their_own():
    same = [call_id("s", 7), call_id("s", "7")]  # clients may send the number as a text
    assert len({*same}) == 1
    others = [call_id("s", 8), call_id("t", 7), call_id("s", "\ud800"), call_id("s/7", "")]
    assert len({*same, *others}) == 5


async def test_an_unexpected_error_is_not_told_to_the_client(caplog):
    async with Client(mcp_server()) as client:  # without a request over HTTP
        for request in (client.list_tools(), client.call_tool("consult", {"question": "hi"})):
            with pytest.raises(MCPError, match=r"^The server failed; its log says why\.$"):
                await request
    assert caplog.text.count("AssertionError") == 2


class Threads:
    """The API of a server on which the thread `ended` ends between two requests."""

    def __init__(self, metadata, run):
        self.metadata, self.run, self.cancelled = metadata, run, []
        self.threads = self.runs = self

    async def search(self, metadata, status, limit, offset, headers):
        assert status == "busy"
        there = [f"other {n}" for n in range(limit)] + ["ended", "the thread"]
        known = self.metadata if metadata else None
        found = [name for name in there if not metadata or (name == "the thread" and known)]
        return [{"thread_id": name} for name in found[offset : offset + limit]]

    async def list(self, thread, headers):
        if thread == "ended":
            request = httpx.Request("GET", "http://x")
            raise httpx.HTTPStatusError("", request=request, response=httpx.Response(404))
        return [{"run_id": "1", "metadata": {}}, *([self.run] if thread == "the thread" else [])]

    async def cancel(self, thread, run, headers):
        self.cancelled.append((thread, run))


@pytest.mark.parametrize(
    ("metadata", "run"),
    [
        (True, {"run_id": "2", "metadata": {"mcp_call": "a call"}}),
        (False, {"run_id": "2", "config": {"metadata": {"mcp_call": "a call"}}}),
    ],
    ids=["as LangGraph Server shows it", "as Aegra shows it"],
)
async def test_the_run_of_a_call_is_found_among_many(monkeypatch, metadata, run):
    monkeypatch.setattr(runs, "_PAUSE", 0)
    server = Runs.__new__(Runs)
    server._headers = {}
    server._client = api = Threads(metadata, run)
    assert not await server.cancel("another call")
    assert api.cancelled == []
    assert await server.cancel("a call")
    assert api.cancelled == [("the thread", "2")]
