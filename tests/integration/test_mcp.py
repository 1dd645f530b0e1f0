"""The tool `consult`, driven by the official client of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from contextlib import asynccontextmanager

import httpx
import jsonschema
import pytest
from langgraph_sdk import get_sync_client
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS

from moa_graph.presets import PRESETS
from tests.fake_server import eventually

ERAS = {"with a handshake": "legacy", "without a handshake": "auto"}
JSON_AND_EVENTS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def named(langgraph_server):
    """`named(name, proposers, aggregator)`: a mixture of that name."""
    client = get_sync_client(url=langgraph_server.url)

    def create(name: str, proposers=("openai:a", "openai:b"), aggregator="openai:agg"):
        context = {"proposers": list(proposers), "aggregator": aggregator}
        client.assistants.create("mixture", name=name, context=context)
        return name

    return create


@pytest.fixture(scope="module")
def panel(named):
    return named("panel")


@asynccontextmanager
async def connected(server, era):
    """A client of that era of the protocol."""
    async with Client(f"{server.url}/mcp", mode=ERAS[era]) as client:
        assert (client.protocol_version >= "2026") == (era == "without a handshake")
        yield client


@asynccontextmanager
async def both(server):
    """A client of each era."""
    one, two = (connected(server, era) for era in ERAS)
    async with one as first, two as second:
        yield first, second


async def consult(client, question="hi", **arguments):
    progress = arguments.pop("progress", None)
    return await client.call_tool(
        "consult", {"question": question, **arguments}, progress_callback=progress
    )


def text_of(result) -> str:
    (content,) = result.content
    return content.text


@pytest.mark.parametrize("era", ERAS)
async def test_the_tool_says_what_it_takes_and_returns(langgraph_server, era, panel, server):
    async with connected(langgraph_server, era) as client:
        (tool,) = (await client.list_tools()).tools
    assert tool.name == "consult"
    assert tool.annotations.read_only_hint
    assert tool.input_schema["required"] == ["question"]
    assert set(tool.input_schema["properties"]) == {"question", "context", "mixture"}
    available = tool.input_schema["properties"]["mixture"]["description"]
    for name in (*PRESETS, "mixture", panel):
        assert repr(name) in available
    for schema in (tool.input_schema, tool.output_schema):
        jsonschema.Draft202012Validator.check_schema(schema)
    assert server.calls == []


@pytest.mark.parametrize("era", ERAS)
async def test_an_answer_and_the_progress_before_it(langgraph_server, era, named, server):
    models = ["openai:a", "openai:b?latency=0.2", "openai:c?status=400"]
    name = named(f"mixed {era}", models)
    seen, told = [], threading.Event()
    # The proposer b answers once the client knows that the first one has.
    server.answers["b"] = lambda call: "b: hi" if told.wait(10) else "nobody was told"

    async def progress(done, steps, message):
        seen.append((done, steps, message))
        told.set()

    async with connected(langgraph_server, era) as client:
        result = await consult(client, "hi", context="It is late.", mixture=name, progress=progress)
        seen.append("the result")
    assert not result.is_error
    assert text_of(result) == "agg: hi\n\nContext:\nIt is late."
    assert [step[:2] for step in seen[:-1]] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[2][2] == "Layer 1: b?latency=0.2 has answered."
    assert seen[-1] == "the result"
    known = result.structured_content
    assert known["answer"] == text_of(result)
    assert (known["model"], known["finish_reason"]) == (name, "stop")
    assert (known["ok"], known["failed"]) == (2, 1)
    assert [(p["proposer"], p["status"]) for p in known["proposals"]] == [
        ("a", "ok"),
        ("b?latency=0.2", "ok"),
        ("c?status=400", "failed"),
    ]
    errors = [p["error"] for p in known["proposals"]]
    assert errors[:2] == [None, None]
    assert errors[2].isidentifier()
    assert f"Layer 1: c?status=400 failed ({errors[2]})." in [step[2] for step in seen[:2]]
    assert "the server said 400" not in result.model_dump_json()
    tokens = sum(call.usage.get("completion_tokens", 0) for call in server.calls)
    assert known["usage"]["output_tokens"] == tokens > 0
    assert [call.messages[-1]["content"] for call in server.of("a")] == [
        "hi\n\nContext:\nIt is late."
    ]


REFUSED = {
    "no question": ({"question": None}, "question"),
    "an empty question": ({"question": ""}, "question: String should have at least 1 character"),
    "a number": ({"question": 1}, "question"),
    "a NUL": ({"question": "a\0b"}, "question: the text must not contain a NUL character"),
    "a NUL in the context": (
        {"context": "a\0b"},
        "context: the text must not contain a NUL character",
    ),
    "an unknown argument": ({"questions": "hi"}, "unknown field 'questions'. Did you mean"),
    "models of its own": ({"proposers": ["openai:x"]}, "unknown field 'proposers'"),
    "an unknown mixture": ({"mixture": "nothing"}, r"Unknown mixture 'nothing'. Available: "),
    "an unknown id": ({"mixture": "00000000-0000-0000-0000-000000000000"}, "Unknown mixture"),
    "two lines": ({"mixture": "a\nb"}, "Unknown mixture 'a\\nb'"),
    "no name": ({"mixture": ""}, "mixture"),
    "too many tokens": ({"question": "word " * 900_000}, "MOA_MAX_TOKENS"),
}


@pytest.mark.parametrize("era", ERAS)
async def test_a_wrong_call_is_an_error_of_the_tool(langgraph_server, era, panel, server):
    async with connected(langgraph_server, era) as client:
        for case, (changes, says) in REFUSED.items():
            arguments = {"question": "hi", "mixture": panel, **changes}
            result = await client.call_tool("consult", arguments)
            assert result.is_error, case
            assert says in text_of(result), case
            assert "pydantic" not in text_of(result), case
        with pytest.raises(MCPError, match="Unknown tool 'answer'") as error:
            await client.call_tool("answer", {})
        assert error.value.code == INVALID_PARAMS
    assert server.calls == []


async def test_a_failed_run_says_why_and_calls_do_not_mix(langgraph_server, named, panel):
    down = named("down for clients", ["openai:d?status=401"])
    questions = [f"question {n}" for n in range(6)]
    async with both(langgraph_server) as clients:
        results = await asyncio.gather(
            *(consult(client, mixture=down) for client in clients),
            *(consult(clients[n % 2], asked, mixture=panel) for n, asked in enumerate(questions)),
        )
    for failed in results[:2]:
        assert failed.is_error
        assert text_of(failed).startswith("The panel gave no answer: Layer 1 gave 0 usable")
        assert "refused the API key" in text_of(failed)
    assert [text_of(result) for result in results[2:]] == [f"agg: {asked}" for asked in questions]


async def test_a_cancelled_call_ends_all_model_calls(langgraph_server, named, server):
    hung = named("hung for clients", ["openai:a?hang", "openai:b?hang"])
    async with both(langgraph_server) as clients:
        asking = [asyncio.create_task(consult(client, mixture=hung)) for client in clients]
        await eventually(lambda: len(server.calls) == 4)
        for call in asking:
            call.cancel()
        await eventually(lambda: all(call.disconnected for call in server.calls))
    assert server.of("agg") == []


# --- the wire ----------------------------------------------------------------------------------


def message(method: str, request: object = 1, **params) -> dict:
    known = {"jsonrpc": "2.0", "method": method, "params": params}
    return known if request is None else {**known, "id": request}


def initialize(version: str, **changes) -> dict:
    known = {
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "a client", "version": "1"},
    }
    return message("initialize", **{**known, **changes})


def answer_in(response: httpx.Response) -> dict:
    """The JSON-RPC message of a response, which is JSON or the last event of a stream."""
    if response.headers["content-type"].startswith("text/event-stream"):
        events = [line[5:] for line in response.text.splitlines() if line.startswith("data:")]
        return json.loads(events[-1])
    return response.json()


@pytest.fixture
async def http(langgraph_server):
    url = langgraph_server.url
    async with httpx.AsyncClient(base_url=url, headers=JSON_AND_EVENTS, timeout=30) as client:
        yield client


async def test_a_notification_cancels_the_call_of_its_session_only(http, named, server):
    hung = named("hung for sessions", ["openai:a?hang"])
    sessions = [
        (await http.post("/mcp", json=initialize("2025-06-18"))).headers["mcp-session-id"]
        for _ in range(2)
    ]

    async def send(session, body):
        return await http.post("/mcp", json=body, headers={"Mcp-Session-Id": session})

    async def cancel(session, request):
        response = await send(session, message("notifications/cancelled", None, requestId=request))
        assert (response.status_code, response.text) == (202, "")

    calls = []
    for session in sessions:
        arguments = {"question": session, "mixture": hung}
        body = message("tools/call", 7, name="consult", arguments=arguments)
        calls.append(asyncio.create_task(send(session, body)))
    await eventually(lambda: len(server.of("a")) == 2)
    asked = {call.messages[-1]["content"]: call for call in server.calls}
    models = [asked[session] for session in sessions]
    await asyncio.gather(
        cancel(sessions[1], 7), cancel(sessions[0], 8), cancel("a session of nobody", 7)
    )
    await eventually(lambda: models[1].disconnected)
    assert answer_in(await calls[1])["result"]["isError"]
    assert not models[0].disconnected
    calls[0].cancel()  # this client goes away
    await eventually(lambda: models[0].disconnected)


VERSIONS = {
    "2024-11-05": "2024-11-05",
    "2025-03-26": "2025-03-26",
    "2025-06-18": "2025-06-18",
    "2025-11-25": "2025-11-25",
    "1999-01-01": "2025-11-25",
    "2099-01-01": "2025-11-25",
    "": "2025-11-25",
}


async def test_a_handshake_agrees_on_a_version(http):
    for asked, agreed in VERSIONS.items():
        response = await http.post("/mcp", json=initialize(asked))
        assert response.status_code == 200, asked
        result = answer_in(response)["result"]
        assert result["protocolVersion"] == agreed, asked
        assert result["capabilities"].keys() == {"tools"}
        assert result["serverInfo"]["name"] == "moa-graph"


NEW = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "consult",
}
FIELDS = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HALF = {"name": "consult", "arguments": {"question": "\ud800"}}
DEEP = '{"a":' * 20_000
WIRE = {
    # name: (method, headers, body, status, code of the error)
    "GET": ("GET", {}, "", 405, -32600),
    "a stream to resume": ("GET", {"Last-Event-ID": "1"}, "", 405, -32600),
    "DELETE": ("DELETE", {"Mcp-Session-Id": "a"}, "", 405, -32600),
    "PUT": ("PUT", {}, "{}", 405, -32600),
    "HEAD": ("HEAD", {}, "", 405, None),
    "no body": ("POST", {}, "", 400, -32700),
    "no JSON": ("POST", {}, "{", 400, -32700),
    "no UTF-8": ("POST", {}, b'{"method": "\xff"}', 400, -32700),
    "too deep": ("POST", {}, DEEP, 400, -32700),
    "a long number": ("POST", {}, '{"id": ' + "9" * 5000 + "}", 400, None),
    "half a character": ("POST", {}, message("tools/call", **HALF), 400, -32700),
    "half a character, as JSON has it": (
        "POST", NEW, message("tools/call", **HALF, _meta=FIELDS), 200, None,
    ),
    "half a character as an id": (
        "POST", {"Mcp-Session-Id": "a"},
        message("notifications/cancelled", None, requestId="\ud800"), 400, -32700,
    ),
    "a batch": ("POST", {}, [message("ping"), message("ping", 2)], 400, None),
    "an empty batch": ("POST", {}, [], 400, None),
    "a text": ("POST", {}, '"ping"', 400, None),
    "null": ("POST", {}, "null", 400, None),
    "no version of JSON-RPC": ("POST", {}, {"id": 1, "method": "ping"}, 400, None),
    "no method": ("POST", {}, {"jsonrpc": "2.0", "id": 1}, 400, None),
    "a method that is none": ("POST", {}, {"jsonrpc": "2.0", "id": 1, "method": 1}, 400, None),
    "another type": ("POST", {"Content-Type": "text/plain"}, message("ping"), 400, None),
    "another form": ("POST", {"Accept": "text/html"}, message("ping"), 406, -32600),
    "JSON only": ("POST", {"Accept": "application/json"}, message("ping"), 406, -32600),
    "an unknown method": ("POST", {}, message("tools/answer"), 200, -32601),
    "a method of others": ("POST", {}, message("resources/list"), 200, -32601),
    "no name of a tool": ("POST", {}, message("tools/call"), 200, -32602),
    "arguments as a list": (
        "POST", {}, message("tools/call", name="consult", arguments=[]), 200, -32602,
    ),
    "a handshake without a client": ("POST", {}, message("initialize"), 200, -32602),
    "a version to come": (
        "POST", {"MCP-Protocol-Version": "2099-01-01"}, message("tools/list"), 400, -32602,
    ),
    "a new version without its fields": (
        "POST", {"MCP-Protocol-Version": "2026-07-28"}, message("tools/list"), 400, None,
    ),
    "a notification": ("POST", {}, message("notifications/initialized", None), 202, None),
    "a notification of nothing": ("POST", {}, message("notifications/x", None), 202, None),
    "a cancellation of nothing": ("POST", {}, message("notifications/cancelled", None), 202, None),
    "an answer": ("POST", {}, {"jsonrpc": "2.0", "id": 1, "result": {}}, 202, None),
}  # fmt: skip


async def test_what_is_not_the_protocol_is_an_error_of_the_protocol(http, server):
    for case, (method, headers, body, status, code) in WIRE.items():
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = {"Content-Type": "application/json", **headers}
        response = await http.request(method, "/mcp", content=content, headers=sent)
        assert response.status_code == status, f"{case}: {response.text}"
        if code is not None:
            assert answer_in(response)["error"]["code"] == code, f"{case}: {response.text}"
        if status == 405:
            assert response.headers["allow"] == "POST"
    assert server.calls == []


async def test_an_address_with_a_slash_is_the_same(http):
    """LangGraph Server has an endpoint of its own there, with a tool for each graph."""
    for path in ("/mcp", "/mcp/"):
        response = await http.post(path, json=message("tools/list"))
        assert [tool["name"] for tool in answer_in(response)["result"]["tools"]] == ["consult"]


# --- the clients of others ---------------------------------------------------------------------

NODE = """
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
const [, , url, panel, hung] = process.argv;
const client = new Client({ name: "a client", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const consult = (mixture, options) => client.callTool(
  { name: "consult", arguments: { question: "hi", mixture } }, undefined, options);
const out = { tools: (await client.listTools()).tools.map((tool) => tool.name), steps: [] };
const onprogress = (step) => out.steps.push([step.progress, step.total]);
out.answer = (await consult(panel, { onprogress })).structuredContent.answer;
out.refused = (await consult("nothing")).isError;
const stopping = new AbortController();
const onfirst = () => stopping.abort();
try {
  await consult(hung, { onprogress: onfirst, signal: stopping.signal });
} catch (error) {
  out.stopped = stopping.signal.aborted;
}
console.log(JSON.stringify(out));
// The connection of the call stays open until standard input ends.
process.stdin.resume().on("end", () => process.exit(0));
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the packages of npm, and a Node that is new enough for them."""
    folder = tmp_path_factory.mktemp("packages")
    names = ("node@22", "@modelcontextprotocol/sdk@1", "@modelcontextprotocol/conformance@" + SUITE)
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", *names],
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return folder


@pytest.mark.services
async def test_the_npm_client(langgraph_server, panel, named, server, packages):
    hung = named("hung for node", ["openai:a", "openai:b?hang"])
    (packages / "client.mjs").write_text(NODE)
    process = await asyncio.create_subprocess_exec(
        packages / "node_modules/.bin/node", "client.mjs",
        f"{langgraph_server.url}/mcp", panel, hung,
        cwd=packages, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        out = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert out == {
            "tools": ["consult"],
            "steps": [[1, 3], [2, 3], [3, 3]],
            "answer": "agg: hi",
            "refused": True,
            "stopped": True,
        }
        # It has sent a notification, and has not closed the connection of the call.
        await eventually(lambda: [call.disconnected for call in server.of("b")] == [False, True])
    finally:
        process.stdin.close()
        await process.wait()


SUITE = "0.2.0-alpha.12"
SCENARIOS = (
    "server-initialize", "server-session-lifecycle", "server-stateless", "ping", "tools-list",
    "http-header-validation", "server-sse-multiple-streams", "dns-rebinding-protection",
)  # fmt: skip


@pytest.mark.services
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_official_suite_finds_no_fault(langgraph_server, packages, scenario, tmp_path):
    command = [packages / "node_modules/.bin/conformance", "server", "--scenario", scenario]
    path = f"{packages / 'node_modules/.bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, "--url", f"{langgraph_server.url}/mcp", "--output-dir", tmp_path],
        cwd=packages, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    (file,) = tmp_path.rglob("checks.json")
    checks = json.loads(file.read_text())
    assert [check for check in checks if check["status"] == "SUCCESS"], done.stdout
    for check in checks:
        if check["status"] == "FAILURE":  # some need a tool of the suite's own
            assert check["errorMessage"].startswith("Not testable: server does not list"), check
