"""What a run belongs to: a user of a server, a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig


def owner_in(config: RunnableConfig) -> str | None:
    """Return the user that a server has identified; None without a server or without users."""
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    owner = getattr(configurable.get("langgraph_auth_user"), "identity", None)
    if owner is None:  # Aegra sets no id, so that clients could set it
        owner = configurable.get("langgraph_auth_user_id") or None
    return None if owner is None else str(owner)


def on_server(config: RunnableConfig) -> bool:
    """Return whether a server runs this code, so that messages may be a client's."""
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    return any(name in configurable for name in ("assistant_id", "graph_id", "langgraph_auth_user"))


def thread_in(config: RunnableConfig) -> str | None:
    """Return the thread of the run; None without a checkpointer."""
    thread = (config.get("configurable") or {}).get("thread_id")
    return None if thread is None else str(thread)
