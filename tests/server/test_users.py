from __future__ import annotations

import socket

import pytest

from moa_graph.server import users
from moa_graph.server.settings import LOCAL_USER, Keys

KEY = "alice-0123456789abcdef"
LOCAL = {"host": "localhost:2024"}


@pytest.fixture(autouse=True)
def _forget():
    users._listens_beyond_this_machine.cache_clear()
    yield
    users._listens_beyond_this_machine.cache_clear()


@pytest.fixture
def _keys(monkeypatch):
    monkeypatch.setattr(users, "_KEYS", Keys(f"alice={KEY}"))


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}", "host": "example.org", "origin": "https://example.org"},
    ],
)
def test_a_key_says_who_it_is(headers):
    assert users.user_of(headers) == "alice"


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        LOCAL,
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer wrong-0123456789abcdef"},
        {"authorization": "Bearer ", "x-api-key": ""},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
        {"x-auth-scheme": "langsmith", **LOCAL},
    ],
)
def test_without_a_right_key_there_is_no_user(headers):
    with pytest.raises(PermissionError, match="API key") as error:
        users.user_of(headers)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "headers",
    [
        LOCAL,
        {"host": "127.0.0.1:8123"},
        {"host": "[::1]:2024"},
        {**LOCAL, "origin": "http://localhost:3000"},
        {**LOCAL, "origin": "https://smith.langchain.com"},
        {**LOCAL, "origin": "https://eu.smith.langchain.com"},
    ],
)
def test_without_keys_this_machine_is_the_user(headers):
    assert users.user_of(headers) == LOCAL_USER


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},
        {"host": "localhost.evil.example"},
        {"host": "192.168.1.7:2024"},
        {**LOCAL, "origin": "https://evil.example"},
        {**LOCAL, "origin": "https://evil-langchain.com"},
        {**LOCAL, "origin": "null"},
        {**LOCAL, "origin": "http://["},
        {"host": "smith.langchain.com"},
    ],
)
def test_without_keys_nobody_else_is(headers):
    with pytest.raises(PermissionError, match="set MOA_API_KEYS"):
        users.user_of(headers)


def test_without_keys_a_server_that_others_can_reach_answers_nobody():
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        with pytest.raises(PermissionError, match=r"listens on 0\.0\.0\.0:\d+ and has no API keys"):
            users.user_of(LOCAL)
