"""What a user with an API key is offered."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from moa_graph.server import guard
from moa_graph.server.checks.writes import Writes
from moa_graph.server.guard import USER, Guard
from moa_graph.server.settings import LOCAL_USER

PATH = "/threads/1/stream/events"


async def said(request):
    return JSONResponse({"user": request.scope.get(USER), "body": (await request.body()).decode()})


async def accepted(websocket):
    await websocket.accept()
    await websocket.send_text(websocket.scope[USER])
    await websocket.close()


def client(monkeypatch, user):
    monkeypatch.setattr(guard, "user_of", lambda headers: user)
    routes = [Route("/{path:path}", said, methods=["POST"]), WebSocketRoute(PATH, accepted)]
    return TestClient(Guard(Writes(Starlette(routes=routes))))


def test_a_websocket_is_for_local_users(monkeypatch):
    with client(monkeypatch, LOCAL_USER).websocket_connect(PATH) as connection:
        assert connection.receive_text() == LOCAL_USER
    with (
        pytest.raises(WebSocketDisconnect) as error,
        client(monkeypatch, "alice").websocket_connect(PATH),
    ):
        pass
    assert error.value.code == 1008
    assert "use HTTP" in error.value.reason


@pytest.mark.parametrize("user", [LOCAL_USER, "alice"])
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/threads/1/history", {"limit": 3}, 200),
        ("/threads/1/history", {"checkpoint": {"checkpoint_id": "1", "checkpoint_ns": ""}}, 200),
        ("/threads/1/history", {"checkpoint": {"layers": 3}}, 422),
        ("/threads/1/history", "not an object", 200),
        ("/threads/1/history/", {"checkpoint": {"layers": 3}}, 200),
        ("/assistants/search", {"limit": 3}, 200),
    ],
)
def test_a_body_is_checked_and_passed_on(monkeypatch, user, path, body, status):
    response = client(monkeypatch, user).post(path, json=body)
    assert response.status_code == status
    if status == 200:
        assert json.loads(response.json()["body"]) == body
        assert response.json()["user"] == user
    else:
        assert "unknown field 'layers'" in response.json()["detail"]


def test_what_is_nested_too_deeply_is_refused(monkeypatch):
    deep = "[" * 990 + "]" * 990
    response = client(monkeypatch, LOCAL_USER).post(
        "/threads/1/state", content=f'{{"values": {{"messages": {deep}}}}}'
    )
    assert response.status_code == 422
    assert response.json()["detail"] == "The request is nested too deeply."
