"""JSON that no route, database or provider can take, before it reaches a route."""

from __future__ import annotations

import json
import random

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from moa_graph.server.checks import json_bodies
from moa_graph.server.checks.json_bodies import JsonBodies
from moa_graph.server.checks.json_values import DEEPEST, check_value
from moa_graph.server.checks.requests import read_body
from moa_graph.server.settings import Settings


@pytest.fixture
def client(monkeypatch):
    """An application that says how many bytes it was given."""
    monkeypatch.setattr(json_bodies, "SETTINGS", Settings(max_values=1000))

    async def app(scope, receive, send):
        await JSONResponse(len(await read_body(receive) or b""))(scope, receive, send)

    return TestClient(JsonBodies(app))


def said(response) -> str:
    body = response.json()
    return body["error"]["message"] if "error" in body else body["detail"]


MANY = {
    "objects": b"[" + b"{}," * 999 + b"{}]",
    "numbers": b"[" + b"0," * 1000 + b"0]",
    "strings": b"[" + b'"",' * 1000 + b'""]',
    "fields": json.dumps({str(i): i for i in range(1000)}).encode(),
    "nested": b"[" * 2000,
    "behind escapes": b'["' + rb"\\" * 70_000 + b'",' + b"0," * 1000 + b"0]",
    "behind a quote": b'["' + rb"\"" * 70_000 + b'",' + b"0," * 1000 + b"0]",
    "other encoding": ("[" + "0," * 1000 + "0]").encode("utf-16"),
}
FEW = {
    "a text of commas": json.dumps(["," * 200_000]).encode(),
    "a text of brackets": json.dumps(["[{" * 100_000]).encode(),
    "escapes": json.dumps(['\\"[,' * 50_000]).encode(),
    "backslashes": json.dumps(["\\" * 200_001 + ","]).encode(),
    "the most": b"[" + b"0," * 998 + b"0]",
    "no JSON": b"x" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/runs/stream", "/moa/markdown", "/mcp"])
@pytest.mark.parametrize("body", MANY)
def test_more_values_than_the_bound_are_refused(client, path, body):
    response = client.post(path, content=MANY[body])
    assert response.status_code == 413
    assert "more than 1,000 JSON values (MOA_MAX_VALUES)" in said(response)


@pytest.mark.parametrize("body", FEW)
def test_text_is_not_counted(client, body):
    response = client.post("/runs/stream", content=FEW[body])
    assert response.json() == len(FEW[body])


async def test_values_are_counted_wherever_a_text_is_cut(monkeypatch):
    drawn = random.Random(4)
    for _ in range(200):
        texts = ["".join(drawn.choices('ab,[{"\\é', k=drawn.randrange(12))) for _ in range(20)]
        body = json.dumps(texts, ensure_ascii=drawn.random() < 0.5).encode()
        monkeypatch.setattr(json_bodies, "_PIECE", drawn.randrange(1, 40))
        monkeypatch.setattr(json_bodies, "SETTINGS", Settings(max_values=21))
        await json_bodies._check_size(body)
        monkeypatch.setattr(json_bodies, "SETTINGS", Settings(max_values=20))
        with pytest.raises(json_bodies.Refused):
            await json_bodies._check_size(body)


WRONG = {
    '{"a": [0, NaN]}': "a.1: the number must be finite, not nan.",
    '{"a": 1e999}': "a: the number must be finite, not inf.",
    "[-Infinity]": "0: the number must be finite, not -inf.",
    '{"a": {"b": 18446744073709551616}}': "a.b: the integer does not fit into 64 bits.",
    '{"a": -9223372036854775809}': "a: the integer does not fit into 64 bits.",
    f'{{"a": {"9" * 5000}}}': "The request has an integer that does not fit into 64 bits.",
    '{"a": "\\ud83d"}': "a: the text must be valid Unicode: it contains half of a surrogate pair.",
    '{"\\ud83d": 1}': "in the name of a field, the text must be valid Unicode",
    '{"a": {"k\\u0000": 1}}': "a: in the name of a field, the text must not contain a NUL",
    '["\\u0000"]': "0: the text must not contain a NUL character.",
    '{"a":' * 101 + "1" + "}" * 101: "nested too deeply. The maximum is 100 levels.",
    "[" * 900 + "]" * 900: "nested too deeply",
}


@pytest.mark.parametrize("body", WRONG)
def test_values_that_cannot_be_sent_or_stored_are_refused(client, body):
    response = client.post("/threads", content=body)
    assert response.status_code == 422
    assert WRONG[body] in said(response)
    response = client.post("/v1/responses", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    ['{"a": [18446744073709551615, -9223372036854775808, 1e308, true, null]}',
     '{"a":' * 100 + "1" + "}" * 100, '"\\ud83d\\ude00"', "not JSON", '{"a": 1', ""],
)  # fmt: skip
def test_others_are_passed_on(client, body):
    assert client.post("/threads", content=body).json() == len(body)


def test_a_body_of_another_encoding_is_refused(client):
    response = client.post("/threads", content=b'{"a": "\xff"}')
    assert response.status_code == 422
    assert "UTF-8" in said(response)


@pytest.mark.parametrize("path", ["/moa/markdown", "/mcp"])
def test_routes_with_errors_of_their_own_get_any_value(client, path):
    for body in ('["\\u0000"]', "[NaN]"):
        assert client.post(path, content=body).json() == len(body)


@pytest.mark.parametrize("path", ["/threads/%00", "/threads/a%00b/state", "/threads?key=%00"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_with_a_nul_character_is_not_found(client, path, method):
    assert client.request(method, path).status_code == 404


def test_the_depth_is_that_of_a_value():
    value = 1
    for _ in range(DEEPEST):
        value = [value]
    check_value(value)
    with pytest.raises(ValueError, match="100 levels"):
        check_value([value])
