from __future__ import annotations

import pytest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient

from moa_graph.server.aegra.failures import PlainFailures

SQL = {"error": "SELECT secret FROM users WHERE name = 'me'"}


async def _parts():
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"


@pytest.fixture
def client():
    async def app(scope, receive, send):
        status = int(scope["path"].rpartition("/")[2])
        whole = JSONResponse(SQL, status, {"X-Request-ID": "1"})
        response = StreamingResponse(_parts()) if status == 200 else whole
        await response(scope, receive, send)

    return TestClient(PlainFailures(app))


def test_the_text_of_a_failure_is_not_told(client):
    response = client.get("/threads/500")
    assert response.status_code == 500
    assert response.json() == {"detail": "The server failed; its log says why."}


@pytest.mark.parametrize("path", ["/threads/404", "/threads/422", "/threads/503", "/v1/500"])
def test_other_errors_are(client, path):
    assert client.get(path).json() == SQL


def test_a_stream_is_passed_on(client):
    assert client.get("/runs/200").text == "data: 1\n\ndata: 2\n\n"
