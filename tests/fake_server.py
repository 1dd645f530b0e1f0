"""An OpenAI-compatible server whose models do what their names say.

A model's name is a label, then `?` and `&`-joined behaviours:

    alpha                        answers "alpha: <the question>"
    alpha?latency=0.2            first token after 0.2 s
    alpha?tail=0.2               first token after a log-normal time with that median, in one
                                 call of twenty ten times as late
    alpha?tps=50                 then 50 tokens a second
    alpha?status=429             refuses with that status (and `retry_after=SECONDS`)
    alpha?fail_first=2           refuses the first two calls with 500
    alpha?hang                   never answers
    alpha?slow_first=9           first token of the first call after 9 s (slow_second, slow_third)
    alpha?empty                  answers with no text
    alpha?refusal                refuses as a model does, in `refusal`
    alpha?cut=3                  ends the connection after three tokens
    alpha?echo_key               refuses with 401 and quotes the key it was given
    alpha?window=8192            refuses prompts that have more tokens (of four characters)
    alpha?malformed              answers with what is not JSON
    alpha?invalid_utf8           answers with bytes that are no UTF-8
    alpha?reasoning              answers with reasoning and nothing else
    alpha?surrogate              answers with half an emoji at the end
    alpha?refuses=temperature    refuses requests that have that setting
    alpha?finish=length          answers as usual, with that `finish_reason`
    alpha?size=10000000          answers with that many characters
    alpha?max_tokens             answers with as many words as it was allowed
    alpha?writes                 stops at its limit of tokens, and goes on from a text of its own
                                 (a trailing assistant message, or when asked to)
    alpha?stall=5                writes so many tokens, and then no more
    alpha?unstable               answers differently each time
    alpha?varies                 begins its answer with the number of the call
    alpha?steps=8                calls its first tool until so many results follow the question
    alpha?steps=8&parallel=2     two calls in each step
    alpha?strict                 refuses what strict providers refuse (provider_rules.py)
    alpha?prefill=1000           first token later by a second for every thousand tokens of the
                                 prompt that no earlier prompt began with
    alpha?...&times=1            does all that in the first call only

`answers[label]` replaces the text, or is a function from the call to it; tools, response formats, `stop` and requests for
scores are obeyed as a capable model would. `calls` logs what every call saw and how it ended.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from tests.provider_rules import PromptCache, broken_rule


@dataclass
class Call:
    """What one call saw, and how it ended."""

    model: str
    body: dict[str, Any]
    key: str
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    ended: float | None = None
    disconnected: bool = False
    finish: str = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    number: int = 0
    """Which call of its model, from 1."""
    prompt: int = 0
    """Tokens of the prompt, with `prefill`."""
    cached: int = 0
    """Those that an earlier prompt began with."""

    @property
    def label(self) -> str:
        return self.model.partition("?")[0]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]

    @property
    def system(self) -> str:
        return "\n".join(_text(m) for m in self.messages if m["role"] == "system")

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until it holds; fail if it does not in that time."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")


class FakeServer:
    """Runs in a thread of its own; `with FakeServer() as server: server.url`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[str, str | Callable[[Call], str]] = {}
        self.answer_all = ""
        self._seen: Counter[str] = Counter()
        self._random = random.Random(0)
        self._cache = PromptCache()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    def __enter__(self) -> FakeServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def reset(self) -> None:
        self.calls.clear()
        self.answers.clear()
        self.answer_all = ""
        self._seen.clear()
        self._random.seed(0)
        self._cache = PromptCache()

    def labels(self) -> list[str]:
        """The labels of the models called, in the order of the calls."""
        return [call.label for call in self.calls]

    def of(self, label: str) -> list[Call]:
        return [call for call in self.calls if call.label == label]

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._chat)
        # Handlers are cancelled when the client goes away: that is how it is noticed.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        call = Call(body["model"], body, key)
        self.calls.append(call)
        try:
            return await self._answer(request, call)
        except (asyncio.CancelledError, ConnectionResetError):
            call.disconnected = True
            raise
        finally:
            call.ended = time.monotonic()

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        does = dict(parse_qsl(call.model.partition("?")[2], keep_blank_values=True))
        self._seen[call.model] += 1
        call.number = self._seen[call.model]
        if self._seen[call.model] > int(does.get("times", 1e9)):
            does = {"writes": ""} if "writes" in does else {}
        for number, name in enumerate(("slow_first", "slow_second", "slow_third"), 1):
            if call.number == number:
                await asyncio.sleep(float(does.get(name, 0)))
        await asyncio.sleep(float(does.get("latency", 0)))
        if "tail" in does:
            slow = 10 if self._random.random() < 0.05 else 1
            await asyncio.sleep(float(does["tail"]) * slow * self._random.lognormvariate(0, 0.3))
        if "prefill" in does:
            call.prompt, call.cached = self._cache.cached(call.model, call.body)
            await asyncio.sleep((call.prompt - call.cached) / float(does["prefill"]))
        if "hang" in does:
            await asyncio.sleep(3600)
        if "echo_key" in does:
            return _error(401, f"Incorrect API key provided: {call.key}")
        if "status" in does:
            headers = {"Retry-After": does["retry_after"]} if "retry_after" in does else {}
            return _error(int(does["status"]), f"the server said {does['status']}", headers)
        if self._seen[call.model] <= int(does.get("fail_first", 0)):
            return _error(500, "not yet")
        if "window" in does and sum(len(_text(m)) for m in call.messages) > 4 * int(does["window"]):
            text = f"This model's maximum context length is {does['window']} tokens."
            return _error(400, text, code="context_length_exceeded")
        if call.body.get(does.get("refuses", "")) is not None:
            return _error(400, f"Unsupported parameter: '{does['refuses']}'.")
        if "strict" in does and (rule := broken_rule(call.body)):
            return _error(400, f"Invalid request: {rule}")
        if foreign := _foreign_blocks(call.messages):
            return _error(400, f"Invalid value: {foreign}")
        try:
            message = self._message(call, does)
        except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
            return _error(400, f"the request is wrong: {error!r}")
        if "malformed" in does:
            return await _raw(request, call, b'{"choices": [{"message": {"content": "the server')
        if "invalid_utf8" in does:
            body = json.dumps(_completion(call, message, does)).encode()
            return await _raw(request, call, body.replace(b"alpha", b"\xff\xfe"))
        call.first_token = time.monotonic()
        delay = 1 / float(does["tps"]) if "tps" in does else 0.0
        if "writes" in does and call.finish == "length":
            does = {**does, "finish": "length"}
        if call.streamed:
            return await _stream(request, call, message, delay, does)
        await asyncio.sleep(delay * len(_tokens(message.get("content") or "")))
        if "cut" in does:
            return await _cut(request, json.dumps(_completion(call, message, does)).encode())
        return web.json_response(_completion(call, message, does))

    def _known(self, call: Call) -> str:
        told = self.answers.get(call.label)
        if callable(told):
            return told(call)
        if count := re.search(r"the (\d+) scores in the order", call.system):
            return ", ".join("7" * int(count[1]))
        return told or self.answer_all or _default_answer(call)

    def _message(self, call: Call, does: dict[str, str]) -> dict[str, Any]:
        if "refusal" in does:
            return {"role": "assistant", "content": None, "refusal": "I can't help with that."}
        if "steps" in does:
            tool_calls = _steps(call.body, int(does["steps"]), int(does.get("parallel", 1)))
        else:
            tool_calls = _tool_calls(call.body)
        if tool_calls:
            return {"role": "assistant", "content": None, "tool_calls": tool_calls}
        text = "" if "empty" in does else self._known(call)
        text = f"<think>{text}" if "reasoning" in does else text
        text += "\ud83d" if "surrogate" in does else ""
        if "size" in does:
            text = (text + " and so on" * (int(does["size"]) // 10))[: int(does["size"])]
        if "max_tokens" in does:
            limit = call.body.get("max_tokens") or call.body.get("max_completion_tokens") or 1000
            text = "word " * (limit - 1) + "word"
        if "writes" in does:
            text = _piece(call, text)
        if "varies" in does:
            text = f"{call.number}: {text}"
        if "unstable" in does:
            text += f" ({call.number})"
        for stop in _as_list(call.body.get("stop")):
            text = text.partition(stop)[0]
        return {"role": "assistant", "content": text}


def _foreign_blocks(messages: list[dict[str, Any]]) -> set[str]:
    """The types of content that OpenAI's API does not know."""
    lists = [m["content"] for m in messages if isinstance(m.get("content"), list)]
    known = {"text", "image_url", "input_audio", "file", "refusal"}
    return {block.get("type", "") for blocks in lists for block in blocks} - known


def _piece(call: Call, text: str) -> str:
    """What a model with that answer writes: it goes on from its own text, up to its limit."""
    text = text[len(_own_text(call.messages, text)) :]
    limit = call.body.get("max_tokens") or call.body.get("max_completion_tokens")
    tokens = _fine_tokens(text)
    if limit is not None and len(tokens) > limit:
        call.finish = "length"
        tokens = tokens[:limit]
    return "".join(tokens)


def _own_text(messages: list[dict[str, Any]], text: str) -> str:
    """What the model has written of a text, in one message or in several turns."""
    last = messages[-1]
    if last["role"] == "user" and "Go on with it" not in _text(last):
        return ""
    said = [_text(message) for message in messages if message["role"] == "assistant"]
    joined = ("".join(said[i:]) for i in range(len(said)))
    return next((own for own in joined if text.startswith(own)), "")


def _fine_tokens(text: str) -> list[str]:
    """Tokens as models have them: spaces before words, signs of other scripts one by one."""
    return re.findall(r" ?[A-Za-z0-9]{1,8}|\s|.", text, flags=re.DOTALL)


def _default_answer(call: Call) -> str:
    form = call.body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return json.dumps(_example(form["json_schema"]["schema"], call.body))
    if form.get("type") == "json_object":
        return json.dumps({"setup": "Why did the cat sit on the computer?", "punchline": "Mouse."})
    return f"{call.label}: {_question(call.body)}"


def _tool_calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Call the tool that is asked for, once; then answer in words."""
    tools = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return []
    if choice == "auto" and body["messages"][-1]["role"] == "tool":
        return []
    wanted = choice["function"]["name"] if isinstance(choice, dict) else tools[0]["name"]
    function = next(tool for tool in tools if tool["name"] == wanted)
    arguments = json.dumps(_example(function.get("parameters") or {}, body), ensure_ascii=False)
    call_id = f"call_{len(body['messages'])}"
    called = {"name": wanted, "arguments": arguments}
    return [{"id": call_id, "type": "function", "function": called}]


def _steps(body: dict[str, Any], steps: int, parallel: int) -> list[dict[str, Any]]:
    """Call the first tool until so many results follow the question."""
    roles = [message["role"] for message in body["messages"]]
    since = roles[max((i for i, role in enumerate(roles) if role == "user"), default=0) :]
    if since.count("tool") >= steps * parallel or not body.get("tools"):
        return []
    functions = [each["function"] for each in body["tools"]]
    # An agent with a panel to consult asks it first, and once.
    first = functions[0]["name"] == "consult" and len(functions) > 1 and "tool" in since
    chosen = functions[1 if first else 0]
    (call,) = _tool_calls({**body, "tool_choice": {"function": chosen}})
    return [{**call, "id": f"{call['id']}_{i}"} for i in range(parallel)]


def _example(schema: dict[str, Any], body: dict[str, Any]) -> Any:
    """A value of the schema; numbers come from the question."""
    numbers = [int(n) for n in re.findall(r"\d+", _question(body))] or [1]

    def value(part: dict[str, Any]) -> Any:
        if "$ref" in part:
            return value(schema["$defs"][part["$ref"].rpartition("/")[2]])
        if "anyOf" in part:
            return value(part["anyOf"][0])
        if "enum" in part:
            return part["enum"][0]
        kind = part.get("type")
        if kind == "object":
            return {name: value(inner) for name, inner in part.get("properties", {}).items()}
        if kind == "array":
            return [value(part.get("items", {"type": "string"}))]
        if kind in ("integer", "number"):
            return numbers.pop(0) if len(numbers) > 1 else numbers[0]
        if kind == "boolean":
            return True
        quoted = re.search(r"'([^']+)'", _question(body))
        return quoted[1] if quoted else "text"

    return value({"type": "object", **schema})


def _question(body: dict[str, Any]) -> str:
    asked = [m for m in body["messages"] if m["role"] == "user"]
    return _text(asked[-1]) if asked else ""


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def _tokens(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _as_list(stop: Any) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or ())


def _usage(call: Call, message: dict[str, Any]) -> dict[str, int]:
    call.usage = _counted(call, message)
    return call.usage


def _counted(call: Call, message: dict[str, Any]) -> dict[str, int]:
    prompt = sum(len(_tokens(_text(m))) for m in call.messages)
    completion = len(_tokens(message.get("content") or "tool call"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _completion(call: Call, message: dict[str, Any], does: dict[str, str]) -> dict[str, Any]:
    finish = "tool_calls" if message.get("tool_calls") else does.get("finish", "stop")
    return {
        "id": f"chatcmpl-{id(call)}",
        "object": "chat.completion",
        "created": 0,
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _usage(call, message),
    }


async def _stream(
    request: web.Request,
    call: Call,
    message: dict[str, Any],
    delay: float,
    does: dict[str, str],
) -> web.StreamResponse:
    cut = int(does.get("cut", -1))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)

    async def send(choices: list[dict[str, Any]], **more: Any) -> None:
        chunk = {"id": f"chatcmpl-{id(call)}", "object": "chat.completion.chunk", "created": 0}
        data = json.dumps({**chunk, "model": call.model, "choices": choices, **more})
        await response.write(f"data: {data}\n\n".encode())

    async def delta(**fields: Any) -> None:
        await send([{"index": 0, "delta": fields, "finish_reason": None}])

    await delta(role="assistant", content="")
    begun = time.monotonic()
    tokens = (_fine_tokens if "writes" in does else _tokens)(message.get("content") or "")
    if "size" in does:  # a network's chunks are larger than tokens
        tokens = ["".join(tokens[i : i + 10_000]) for i in range(0, len(tokens), 10_000)]
    for i, token in enumerate(tokens):
        if i == cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        if i == int(does.get("stall", -1)):
            await asyncio.sleep(3600)
        # By the clock: a model's speed does not depend on how busy this machine is. For `writes`,
        # the first token came with the latency.
        due = begun + delay * (i if "writes" in does else i + 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await delta(content=token)
    for i, tool_call in enumerate(message.get("tool_calls") or ()):
        await delta(tool_calls=[{"index": i, **tool_call}])
    if message.get("refusal"):
        await delta(refusal=message["refusal"])
    finish = "tool_calls" if message.get("tool_calls") else does.get("finish", "stop")
    await send([{"index": 0, "delta": {}, "finish_reason": finish}])
    usage = _usage(call, message)
    if (call.body.get("stream_options") or {}).get("include_usage"):
        await send([], usage=usage)
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _raw(request: web.Request, call: Call, body: bytes) -> web.StreamResponse:
    """Bytes that are no answer, in the form that was asked for."""
    kind = "text/event-stream" if call.streamed else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    await response.write(b"data: " + body + b"\n\ndata: [DONE]\n\n" if call.streamed else body)
    await response.write_eof()
    return response


async def _cut(request: web.Request, body: bytes) -> web.StreamResponse:
    """The first half of an answer; then the connection is gone."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


def _error(
    status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None
) -> web.Response:
    error = {"message": message, "type": "error", "code": code or status}
    return web.json_response({"error": error}, status=status, headers=headers)
