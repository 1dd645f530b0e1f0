"""Whose run it is, as servers tell it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from moa_graph.calling.owner import owner_in

ALICE = SimpleNamespace(identity="alice")


@pytest.mark.parametrize(
    ("configurable", "owner"),
    [
        ({}, None),
        ({"langgraph_auth_user_id": ""}, None),
        ({"langgraph_auth_user_id": "alice"}, "alice"),
        ({"langgraph_auth_user": None, "langgraph_auth_user_id": "alice"}, "alice"),
        ({"langgraph_auth_user": ALICE}, "alice"),
        # On Aegra, a client can add the id to its own request.
        ({"langgraph_auth_user": ALICE, "langgraph_auth_user_id": "bob"}, "alice"),
    ],
)
def test_a_client_cannot_say_that_it_is_another(configurable, owner):
    assert owner_in({"configurable": configurable}) == owner
