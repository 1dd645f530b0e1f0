"""OpenAI's API as a function, for what a test wants a provider to refuse or to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from langchain_openai import ChatOpenAI


def refusal(message: str, status: int = 400) -> httpx.Response:
    """An error as OpenAI's API has it."""
    return httpx.Response(status, json={"error": {"message": message}})


def completion(text: str, model: str = "m", **more: Any) -> httpx.Response:
    """An answer as OpenAI's API has it."""
    message = {"role": "assistant", "content": text}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": model, **more}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return httpx.Response(200, json={**body, "choices": choices})


def mock_openai(
    serve: Callable[[dict[str, Any], int], httpx.Response], model: str = "m", **options: Any
) -> ChatOpenAI:
    """A chat model of a provider that answers as the function says.

    Args:
        serve: From the request's body, and its length in bytes, to the response.
        model: The model's name.
        **options: What the chat model is given besides.
    """

    def handle(request: httpx.Request) -> httpx.Response:
        return serve(json.loads(request.content), len(request.content))

    transport = httpx.MockTransport(handle)
    clients = {
        "http_client": httpx.Client(transport=transport),
        "http_async_client": httpx.AsyncClient(transport=transport),
    }
    return ChatOpenAI(model=model, api_key="x", base_url="http://o/v1", **clients, **options)
