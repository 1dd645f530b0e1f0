"""Bodies that are too large, and batches, before they reach a route."""

from __future__ import annotations

import json

import orjson
import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from moa_graph.server import drain
from moa_graph.server.checks import requests
from moa_graph.server.checks.requests import BodyBound, current_batch, parsed
from moa_graph.server.drain import ToldEnds
from moa_graph.server.settings import Settings


@pytest.fixture
def client(monkeypatch):
    """An application that says how many bytes it was given, and how many runs."""
    monkeypatch.setattr(requests, "SETTINGS", Settings(max_bytes=1000))

    async def app(scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        batch = current_batch.get()
        said = {"bytes": size, "runs": len(batch.runs) if batch else None}
        await JSONResponse(said)(scope, receive, send)

    return TestClient(BodyBound(app))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/runs/stream", "/moa/markdown"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 50_000])
def test_a_body_above_the_bound_is_refused(client, path, chunked, size):
    body = b"x" * size
    parts = (body[i : i + 100] for i in range(0, size, 100))
    response = client.post(path, content=parts if chunked else body)
    if size <= 1000:
        assert response.json() == {"bytes": size, "runs": None}
        return
    assert response.status_code == 413
    said = response.json()
    text = said["error"]["message"] if path.startswith("/v1") else said["detail"]
    assert "1,000 bytes (MOA_MAX_BYTES)" in text


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        (b"[1, 2, 3]", 3),
        (b"[]", 0),
        (b"{}", 0),
        (b"not JSON", 0),
        (b"[" * 900, 0),
        (b"[1, 2, " + b"[" * 400 + b"]" * 400 + b"]", 3),
        ("[1, 2]".encode("utf-16"), 2),
    ],
)
def test_the_runs_of_a_batch_are_counted(client, body, runs):
    response = client.post("/runs/batch", content=body)
    assert response.json() == {"bytes": len(body), "runs": runs}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "application/json"])
def test_a_stream_that_a_shutdown_cuts_ends_with_an_error(monkeypatch, ends, cut, kind):
    if cut:
        monkeypatch.setattr(drain.cut, "is_set", lambda: True)

    async def app(scope, receive, send):
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        if ends or not told:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    told = cut and kind.startswith("text/event-stream")
    text = TestClient(ToldEnds(app)).get("/runs/stream").text
    assert text.count("event: error") == told
    if told:
        data = text.split("event: error\ndata: ")[1]
        assert "shutting down" in json.loads(data)["message"]


def test_runs_that_are_nested_deeply_are_counted():
    """LangGraph Server reads what is nested too deeply for Python's own reader."""
    deep = b"[" * 1000 + b"]" * 1000
    assert orjson.loads(deep)
    assert len(parsed(b"[1, 2, " + deep + b"]")) == 3
