"""What the routes of the page are made of: the offer, the exports, and the votes."""

from __future__ import annotations

import json
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import UUID

import pytest

from moa_graph.evals.records import read_records
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration
from moa_graph.server.assistants import described_by
from moa_graph.server.page_api import offer as offering
from moa_graph.server.page_api.explicit import concise, explicit
from moa_graph.server.page_api.offer import offer
from moa_graph.server.page_api.python_code import python_code
from moa_graph.server.page_api.votes import (
    AlreadyVoted,
    Vote,
    keep_in_files,
    keep_in_langsmith,
    traces,
)
from moa_graph.server.settings import Settings
from moa_graph.strategies.names import STRATEGIES
from tests.langsmith_receiver import forget_client

A, B, JUDGE = "openai:a", "openai:b", "openai:judge"
MIXTURES = {
    "models": {"proposers": [A, B], "aggregator": A},
    "layers": {"proposers": [A, B], "aggregator": A, "layers": 4},
    "roles": {
        "proposers": [
            {"model": A, "name": "critic", "prompt": 'Say "no".\nAlways, it\'s \\ better.'},
            {"model": B, "samples": 3, "temperature": 1.2, "timeout": 5},
        ],
        "aggregator": {"model": B, "temperature": 0, "max_tokens": 100},
    },
    "a layer of each kind": {
        "proposers": [
            {
                "proposers": [A, B], "quorum": 1, "grace": 0.5, "timeout": 9, "hedge": "2x",
                "select": [{"strategy": "top_k", "k": 1, "judge": JUDGE}, "shuffle"],
                "until": {"strategy": "agree", "parse": "number", "then": "answer"},
                "reserve": [JUDGE],
            },
            [A, B],
        ],
        "aggregator": {"strategy": "rank", "judge": JUDGE},
    },
    "votes": {
        "proposers": [A, B],
        "aggregator": {"strategy": "vote", "weights": {"a": 2}, "tie": "longest"},
    },
    "options": {
        "proposers": [A, B], "aggregator": A, "progressive": "staircase",
        "references": {"fenced": True, "prompt": "Übersetze «das» 中"},
        "limits": {"timeout": 30, "tokens": 5000},
    },
    "route": {"proposers": [A], "aggregator": A, "route": {"model": B, "judge": JUDGE}},
}  # fmt: skip


def _built(code: str) -> Configuration:
    names: dict = {}
    exec(compile(code.partition("\nprint(")[0], "mixture.py", "exec"), names)
    return Configuration.of(names["moa"])


@pytest.mark.parametrize("name", [*MIXTURES, *PRESETS])
def test_the_python_code_builds_the_graph_of_the_toml_file(name):
    if name in MIXTURES:
        configuration = described_by(MIXTURES[name], "mine")
        read = Configuration(**tomllib.loads(configuration.to_toml()))
    else:
        configuration = read = PRESETS[name]
    code = python_code(configuration)
    assert max(map(len, code.splitlines())) <= 100 or "WizardLM" in code
    assert _built(code) == Configuration.of(read.create())


@pytest.mark.parametrize("name", [*MIXTURES, *PRESETS])
def test_settings_that_all_models_share_are_written_once(name):
    given = PRESETS[name] if name in PRESETS else described_by(MIXTURES[name], "mine")
    parts = {part: explicit(given).get(part) for part in ("proposers", "aggregator", "route")}
    unused = {"temperature": 1.9, "max_tokens": 3}
    written = concise(given.model_copy(update={**parts, **unused}))
    if name != "roles":  # whose models have temperatures of their own
        assert written == given
    assert {part: explicit(written).get(part) for part in parts} == parts


def test_settings_that_some_models_have_stay_with_them():
    own = {"model": A, "temperature": 0.5, "max_tokens": 7}
    for context in (
        {"proposers": [own, B], "aggregator": own},
        {"proposers": [own], "aggregator": B},
        {"proposers": [own], "aggregator": {"strategy": "rank", "judge": JUDGE}},
        {"proposers": {"proposers": [own], "reserve": [B]}, "aggregator": own},
        {"proposers": [own], "aggregator": own, "route": {"model": A, "judge": own}},
    ):
        described = described_by(context, "mine")
        assert concise(described) == described


def test_the_offer_has_every_strategy_with_its_arguments():
    offered = offer()["strategies"]
    for place, strategies in offered.items():
        assert {one["name"] for one in strategies} >= set(STRATEGIES[place])
    (rank,) = [one for one in offered["aggregator"] if one["name"] == "rank"]
    assert rank["arguments"] == [
        {"name": "judge", "required": True, "default": None, "kind": "model"}
    ]
    (agree,) = [one for one in offered["until"] if one["name"] == "agree"]
    kinds = {one["name"]: one["kind"] for one in agree["arguments"]}
    assert kinds == {"share": "number", "parse": "choice", "then": "choice"}
    assert json.loads(json.dumps(offer())) == offer()


@pytest.mark.parametrize(
    ("given", "patterns", "has", "lacks"),
    [
        ({}, ["*"], "openai:gpt-4o", "openai:none"),
        ({"allowed_models": "openai:x, together:*"}, ["together:*"], "openai:x", "openai:gpt-4o"),
        ({"api_keys": "alice=0123456789abcdef"}, [], "openai:gpt-4o", "openai:x"),
    ],
)
def test_the_offer_has_only_models_that_the_server_allows(monkeypatch, given, patterns, has, lacks):
    settings = Settings(**given)
    monkeypatch.setattr(offering, "SETTINGS", settings)
    offered = offer.__wrapped__()
    assert offered["patterns"] == patterns
    assert has in offered["models"]
    assert lacks not in offered["models"]
    assert all(map(settings.allows, offered["models"]))
    for preset in offered["presets"]:
        assert all(map(settings.allows, PRESETS[preset].models()))


def _proposal(proposer: str, model: str):
    return {"layer": 1, "proposer": proposer, "model": model, "content": proposer, "status": "ok"}


def test_votes_are_recorded_answers(tmp_path):
    folder = tmp_path / "new" / "votes"
    among = [_proposal("a", "x"), _proposal("b", "y"), _proposal("b_2", "y")]
    for number, chosen in enumerate(["a", "b_2", "a"]):
        vote = Vote(thread_id=UUID(int=1), run_id=UUID(int=number), layer=1, proposer=chosen)
        keep_in_files(vote, f"Frage {number}: 中?", among, folder)
        with pytest.raises(AlreadyVoted, match="has a vote already"):
            keep_in_files(vote, "again", among, folder)
    (records,) = read_records([folder])
    assert list(records.questions.values()) == ["Frage 0: 中?", "Frage 1: 中?", "Frage 2: 中?"]
    assert {name: round(m.accuracy, 2) for name, m in records.models.items()} == {"x": 0.67, "y": 0.33}  # fmt: skip
    assert not any(model.disagreeing for model in records.models.values())


PROJECT = {
    "id": str(UUID(int=3)), "tenant_id": str(UUID(int=4)), "name": "default",
    "start_time": "2026-01-01T00:00:00", "reference_dataset_id": None,
}  # fmt: skip


@pytest.fixture
def feedback(monkeypatch):
    """What a LangSmith server has received as feedback."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            asked = self.path.startswith("/sessions")
            self.wfile.write(json.dumps([PROJECT] if asked else {}).encode())

        def log_message(self, *args) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "ls-test")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    forget_client()
    yield received
    server.shutdown()
    server.server_close()
    forget_client()


def test_votes_are_feedback_on_the_run_in_langsmith(feedback):
    assert traces()
    run = UUID(int=7)
    among = [_proposal("a", "x"), _proposal("b", "y")]
    keep_in_langsmith(Vote(thread_id=UUID(int=1), run_id=run, layer=1, proposer="b"), among)
    ((path, sent),) = feedback
    assert path == "/feedback"
    assert sent["run_id"] == str(run)
    assert sent["session_id"] == PROJECT["id"]
    assert sent["key"] == "moa_reader_vote"
    assert sent["value"] == {"layer": 1, "proposer": "b", "model": "y", "among": ["a", "b"]}


def test_without_tracing_votes_are_not_sent():
    forget_client()
    assert not traces()
