"""Providers and model servers on loopback, each on a port of its own, with its own protocol.

`asked` has every request: who was asked, where, with which headers and body. `environment(name)`
sets a provider's key and sends its requests here, as its LangChain package reads it.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import struct
import threading
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from moa_graph.models.providers import PROVIDERS
from moa_graph.presets.servers import SERVERS

KEYS = {name: f"key-of-{name}-0123456789" for name in PROVIDERS}
BASES = {
    "together": ("TOGETHER_API_BASE", "/v1"),
    "openai": ("OPENAI_BASE_URL", "/v1"),
    "anthropic": ("ANTHROPIC_BASE_URL", ""),
    "google_genai": ("GOOGLE_GEMINI_BASE_URL", ""),
    "openrouter": ("OPENROUTER_API_BASE", "/api/v1"),
    "groq": ("GROQ_API_BASE", ""),
    "mistralai": ("MISTRAL_BASE_URL", "/v1"),
    "deepseek": ("DEEPSEEK_API_BASE", "/v1"),
    "xai": ("XAI_API_BASE", "/v1/"),
    "fireworks": ("FIREWORKS_API_BASE", "/inference/v1"),
    "azure_openai": ("AZURE_OPENAI_ENDPOINT", ""),
    "bedrock_converse": ("AWS_ENDPOINT_URL", ""),
}


@dataclass
class Asked:
    """A request."""

    who: str
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class FakeProviders:
    """Runs in a thread of its own; `with FakeProviders() as providers: providers.port["groq"]`."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.port: dict[str, int] = {}
        self.models: dict[str, Any] = {}
        """Answer to a list of models, by who is asked; 404 for the others."""
        self.more: dict[tuple[str, str], Any] = {}
        """Other answers, by who is asked and the path."""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeProviders:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def reset(self) -> None:
        self.asked.clear()
        self.models.clear()
        self.more.clear()

    def environment(self, name: str) -> dict[str, str]:
        """Variables of a provider: its key, and its address here."""
        variable, path = BASES[name]
        more = {
            "azure_openai": {"AZURE_OPENAI_DEPLOYMENT": "my-gpt"},
            "bedrock_converse": {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"},
        }
        key = PROVIDERS[name].keys[0][0]
        url = f"http://127.0.0.1:{self.port[name]}{path}"
        return {key: KEYS[name], variable: url, **more.get(name, {})}

    def who(self) -> set[str]:
        """Who was asked to chat."""
        return {asked.who for asked in self.asked if asked.method == "POST" and asked.body}

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        for name in (*PROVIDERS, *(server.name for server in SERVERS)):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port[name] = runner.addresses[-1][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        port = request.transport.get_extra_info("sockname")[1]
        (who,) = (name for name, own in self.port.items() if own == port)
        text = await request.text()
        body = json.loads(text) if text else {}
        self.asked.append(Asked(who, request.method, request.path, dict(request.headers), body))
        if (who, request.path) in self.more:
            return web.json_response(self.more[who, request.path])
        if request.method == "GET":
            lists = request.path.endswith(("/models", "/tags", "-models", "-profiles"))
            if not lists or who not in self.models:
                return web.json_response({}, status=404)
            return web.json_response(self.models[who])
        return await _chat(request, who, body)


async def _chat(request: web.Request, who: str, body: dict[str, Any]) -> web.StreamResponse:
    said = f"{who} answers."
    path = request.path
    if path.endswith("/chat/completions"):
        return await _openai(request, body, said)
    if path.endswith("/v1/messages"):
        return await _anthropic(request, body, said)
    if "enerateContent" in path:
        return await _google(request, said)
    if "/converse" in path:
        return await _bedrock(request, said)
    return web.json_response({}, status=404)


async def _openai(request: web.Request, body: dict[str, Any], said: str) -> web.StreamResponse:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    same = {"id": "chatcmpl-1", "created": 0, "model": body.get("model") or "m"}
    if not body.get("stream"):
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        kind = "chat.completion"
        return web.json_response({**same, "object": kind, "choices": [choice], "usage": usage})
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": said}, {}]
    events = [
        {
            **same,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}],
            **({} if delta else {"usage": usage}),
        }
        for delta in deltas
    ]
    return await _events(
        request, [f"data: {json.dumps(e)}\n\n" for e in events], "data: [DONE]\n\n"
    )


async def _anthropic(request: web.Request, body: dict[str, Any], said: str) -> web.StreamResponse:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    block = {"type": "text", "text": said}
    if not body.get("stream"):
        return web.json_response({**message, "content": [block], "stop_reason": "end_turn"})
    told = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {**block, "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": said},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]
    return await _events(request, [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in told])


async def _google(request: web.Request, said: str) -> web.StreamResponse:
    content = {"role": "model", "parts": [{"text": said}]}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    candidates = [{"content": content, "finishReason": "STOP", "index": 0}]
    whole = {"candidates": candidates, "usageMetadata": usage, "modelVersion": "m"}
    if "stream" not in request.path:
        return web.json_response(whole)
    return await _events(request, [f"data: {json.dumps(whole)}\n\n"])


async def _bedrock(request: web.Request, said: str) -> web.StreamResponse:
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    if not request.path.endswith("-stream"):
        message = {"role": "assistant", "content": [{"text": said}]}
        output = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
        return web.json_response({**output, "metrics": {"latencyMs": 1}})
    events = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": said}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]
    kind = "application/vnd.amazon.eventstream"
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    for name, data in events:
        await response.write(_amazon_event(name, json.dumps(data).encode()))
    await response.write_eof()
    return response


def _amazon_event(name: str, payload: bytes) -> bytes:
    given = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(key))
        + key.encode()
        + struct.pack("!BH", 7, len(value))
        + value.encode()
        for key, value in given.items()
    )
    start = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
    start += struct.pack("!I", binascii.crc32(start))
    body = start + headers + payload
    return body + struct.pack("!I", binascii.crc32(body))


async def _events(request: web.Request, events: list[str], last: str = "") -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in (*events, last):
        await response.write(event.encode())
    await response.write_eof()
    return response
