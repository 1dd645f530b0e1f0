"""A server with API keys and low bounds: its settings, and its users."""

from __future__ import annotations

from typing import Any

import httpx
from langgraph_sdk import get_client

NAMES = (
    "alice", "bob", "carol", "dave", "me@example.com",
    "threads", "forger", "assistants", "items", "metadata", "states", "forks", "parts", "writer",
)  # fmt: skip
KEYS = {name: f"{name.partition('@')[0]}-0123456789abcdef" for name in NAMES}
RUNS_PER_MINUTE = 12
MOST = 20  # threads and assistants
MOST_ITEMS = 12
MOST_VERSIONS = 3
MOST_STORED = 4000  # bytes
MOST_METADATA = 2000  # bytes
SETTINGS = {
    "MOA_API_KEYS": ",".join(f"{name}={key}" for name, key in KEYS.items()),
    "MOA_ALLOWED_MODELS": "openai:a*,openai:b*,openai:agg*",
    "MOA_MAX_LAYERS": "3",
    "MOA_MAX_PROPOSERS": "4",
    "MOA_MAX_SAMPLES": "2",
    "MOA_MAX_TOKENS": "100000",
    "MOA_RUNS_PER_MINUTE": str(RUNS_PER_MINUTE),
    "MOA_MAX_MESSAGES": "50",
    "MOA_MCP": "1",
    "MOA_MAX_THREADS": str(MOST),
    "MOA_MAX_ASSISTANTS": str(MOST),
    "MOA_MAX_VERSIONS": str(MOST_VERSIONS),
    "MOA_MAX_ITEMS": str(MOST_ITEMS),
    "MOA_MAX_STORED_BYTES": str(MOST_STORED),
    "MOA_MAX_METADATA": str(MOST_METADATA),
}
INPUT = {"messages": [{"role": "user", "content": "hi"}]}
MIXTURE = {"proposers": ["openai:a", "openai:b"], "aggregator": "openai:agg"}


def client_of(url: str, name: str) -> Any:
    """LangGraph's client with the key of a user."""
    return get_client(url=url, api_key=KEYS[name])


def http_of(url: str, name: str) -> httpx.AsyncClient:
    """A client of the bare API with the key of a user."""
    return httpx.AsyncClient(base_url=url, headers={"x-api-key": KEYS[name]}, timeout=60)
