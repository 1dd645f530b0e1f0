"""The configuration of an assistant, before Aegra stores it."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from moa_graph.server.aegra.assistants import DistinctAssistants

MIXTURE = {"proposers": ["openai:a"]}


@pytest.fixture
def sent():
    """`sent(method, path, body)`: the body that the application is given."""

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        assert int(headers[b"content-length"]) == len(body)
        await Response(body)(scope, receive, send)

    client = TestClient(DistinctAssistants(app))
    return lambda method, path, body: client.request(method, path, content=body).content


@pytest.mark.parametrize("path", ["/assistants", "/assistants/"])
@pytest.mark.parametrize(
    "asked",
    [
        {"graph_id": "mixture", "context": MIXTURE},
        {"graph_id": "mixture", "config": {"configurable": MIXTURE, "tags": ["a"]}},
        {"graph_id": "together", "config": None, "assistant_id": None},
        {"graph_id": "mixture", "config": {"metadata": {"of": "me"}}, "name": "schön"},
    ],
)
def test_each_new_assistant_has_its_id_in_its_configuration(sent, path, asked):
    one, other = (json.loads(sent("POST", path, json.dumps(asked))) for _ in range(2))
    for made in (one, other):
        UUID(made["assistant_id"])
        assert made["config"]["metadata"]["assistant_id"] == made["assistant_id"]
        kept = {**made, "config": {k: v for k, v in made["config"].items() if k != "metadata"}}
        given = {k: v for k, v in (asked.get("config") or {}).items() if k != "metadata"}
        assert kept == {**asked, "config": given, "assistant_id": made["assistant_id"]}
        assert (asked.get("config") or {}).get("metadata", {}).items() <= made["config"][
            "metadata"
        ].items()
    assert one["config"] != other["config"]


def test_an_id_of_the_client_is_kept(sent):
    asked = {"graph_id": "mixture", "assistant_id": "mine", "if_exists": "do_nothing"}
    made = json.loads(sent("POST", "/assistants", json.dumps(asked)))
    assert made == {**asked, "config": {"metadata": {"assistant_id": "mine"}}}


def test_an_update_keeps_the_id(sent):
    for asked, config in [
        ({"config": {"configurable": MIXTURE}}, {"configurable": MIXTURE}),
        ({"config": {}, "context": MIXTURE}, {}),
        ({"config": None}, {}),
    ]:
        made = json.loads(sent("PATCH", "/assistants/mine", json.dumps(asked)))
        assert made == {**asked, "config": {**config, "metadata": {"assistant_id": "mine"}}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/assistants/mine", '{"name":  "new"}'),
        ("POST", "/assistants/search", '{"config": {}}'),
        ("POST", "/assistants/mine/latest", '{"version":  1}'),
        ("POST", "/threads", '{"config": {}}'),
        ("POST", "/assistants", "not JSON"),
        ("POST", "/assistants", "[" * 100_000),
        ("POST", "/assistants", "[1]"),
        ("POST", "/assistants", '{"config": 5}'),
        ("POST", "/assistants", '{"config": {"metadata": 5}}'),
    ],
)
def test_another_request_is_passed_on_as_it_is(sent, method, path, body):
    assert sent(method, path, body).decode() == body
