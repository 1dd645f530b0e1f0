"""Streams of runs that fail, or start again in another process, on Aegra."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import httpx
import pytest

from moa_graph.server.aegra import streams as aegra_streams
from moa_graph.server.aegra.streams import TAKES_RESTARTS, AegraStreams

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"content-location", b"/threads/1/runs/2"),
]


def event(name: str) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'text': 'event: metadata'})}\nid: 1\n\n".encode()


async def stream(
    *names: str, path: str = "/runs/stream", method: str = "POST", **headers: str
) -> tuple[list[str], bool]:
    """The events that a client gets of a run's, and whether the run was told that it is gone."""
    gone = False

    async def app(scope, receive, send):
        nonlocal gone

        async def listen():
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True

        listening = asyncio.create_task(listen())
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        for name in names:
            await send({"type": "http.response.body", "body": event(name), "more_body": True})
            await asyncio.sleep(0)
        listening.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    transport = httpx.ASGITransport(AegraStreams(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        text = (await client.request(method, path, headers=headers)).text
    return [line[7:] for line in text.splitlines() if line.startswith("event: ")], gone


BEFORE = ["metadata", "updates", "messages", "messages"]
AGAIN = ["metadata", "messages", "updates", "end"]


@pytest.mark.parametrize("path", ["/runs/stream", "/threads/1/runs/stream"])
@pytest.mark.parametrize("tokens", ["messages", "messages|layer"])
async def test_a_stream_of_tokens_that_starts_again_is_an_error_and_the_run_goes_on(path, tokens):
    before = ["metadata", "updates", tokens, tokens]
    assert await stream(*before, *AGAIN, path=path) == ([*before, "error"], False)


@pytest.mark.parametrize(
    "names",
    [
        [*BEFORE, "updates", "end"],
        ["metadata", "updates", *AGAIN],
        ["metadata", "values", "metadata", "values", "end"],
        ["metadata", "messages/partial", "metadata", "messages/partial", "end"],
    ],
)
async def test_other_streams_are_passed_on_as_they_are(names):
    assert (await stream(*names))[0] == names


async def test_a_client_may_take_restarts():
    names = [*BEFORE, *AGAIN]
    assert (await stream(*names, **{TAKES_RESTARTS: "true"}))[0] == names
    joined = {"path": "/threads/1/runs/2/stream", "method": "GET"}
    assert (await stream(*names, **joined))[0] == names


@pytest.mark.parametrize(
    ("status", "record", "reason"),
    [
        (200, {"error_message": "All proposers failed: …"}, "All proposers failed: …"),
        (200, {"error_message": None}, "MoAError: execution failed"),
        (200, {}, "MoAError: execution failed"),
        (404, {"detail": "not found"}, "MoAError: execution failed"),
    ],
)
@pytest.mark.parametrize("path", ["/runs/stream", "/threads/1/runs/2/stream"])
async def test_an_error_has_its_reason(monkeypatch, path, status, record, reason):
    def answer(request):
        assert request.url.path == "/threads/1/runs/2"
        assert request.headers["x-api-key"] == "mine"
        return httpx.Response(status, json=record)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test")
    itself = SimpleNamespace(http=http, headers={"x-api-key": "mine"})
    monkeypatch.setattr(aegra_streams, "Itself", lambda scope: itself)
    error = {"error": "MoAError", "message": "MoAError: execution failed"}
    body = f"event: error\ndata: {json.dumps(error)}\nid: 7\n\n".encode()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": event("metadata"), "more_body": True})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": event("end"), "more_body": False})

    transport = httpx.ASGITransport(AegraStreams(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        text = (await client.get(path, headers={"x-api-key": "mine"})).text
    assert text.startswith(event("metadata").decode())
    assert text.endswith(event("end").decode())
    data = json.loads(text.partition("event: error\ndata: ")[2].partition("\n")[0])
    assert data == {"error": "MoAError", "message": reason}
