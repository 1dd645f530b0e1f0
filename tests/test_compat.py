"""What upstream does not document, and we use: each test says what has changed when it fails."""

from __future__ import annotations

import asyncio
import re
import ssl
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from langchain.chat_models import init_chat_model
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from moa_graph import _compat

ROOT = Path(__file__).parent.parent / "moa_graph"
INTERNALS = re.compile(
    r"__pregel|langgraph\._internal|langgraph\.pregel\._|var_child_runnable_config"
    r"|_generate_with_cache|root_async_client|httpcore|_PROFILES|_profiles\.py"
)


def graph_of(node: Any, **options: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(**options)


def test_nothing_else_uses_what_upstream_does_not_document():
    users = {p.name for p in ROOT.rglob("*.py") if INTERNALS.search(p.read_text())}
    assert users == {"_compat.py"}


def test_the_handler_of_a_stream_of_messages_is_known_by_its_module():
    found: list[bool] = []

    def node(state: Any, config: RunnableConfig) -> Any:
        handlers = config["callbacks"].handlers
        found.extend(map(_compat.is_message_stream, handlers))
        return {}

    list(graph_of(node).stream({"messages": "hi"}, stream_mode="messages"))
    assert any(found), (
        "LangGraph's handler for stream_mode='messages' is not in langgraph.pregel._messages any "
        "more: proposers' tokens would be streamed as if they were the answer's."
    )


def test_the_handler_writes_what_it_shows_to_its_stream():
    model = GenericFakeChatModel(messages=iter([AIMessage("one two")]))

    def node(state: Any, config: RunnableConfig) -> Any:
        manager = config["callbacks"].copy()

        def shown(message: Any, run: Any) -> list[Any]:
            return [message.model_copy(update={"content": str(message.content).upper()})]

        manager.handlers = [_compat.with_stream(h, shown) for h in manager.handlers]
        manager.inheritable_handlers = manager.handlers
        return {"messages": [model.invoke("hi", {**config, "callbacks": manager})]}

    events = graph_of(node).stream({"messages": "hi"}, stream_mode="messages")
    assert "".join(m.text for m, _ in events) == "ONE TWO", (
        "LangGraph's handler for stream_mode='messages' does not write to its attribute `stream` "
        "any more: reasoning would be shown in streams."
    )


def test_a_run_has_its_checkpointer_in_its_configuration():
    saver, found = InMemorySaver(), []

    def node(state: Any, config: RunnableConfig) -> Any:
        found.append(_compat.checkpointer_in(config))
        return {}

    graph = graph_of(node, checkpointer=saver)
    graph.invoke({"messages": "hi"}, {"configurable": {"thread_id": "1"}})
    assert found == [saver], (
        "LangGraph does not keep a run's checkpointer in its configuration any more: a resumed "
        "layer would not count for its quorum what was stored before."
    )


def test_a_compiled_graph_can_be_made_one_of_a_subclass():
    class Own(type(graph_of(lambda state: {}))):  # type: ignore[misc]
        pass

    own = _compat.as_graph(Own, graph_of(lambda state: {"messages": "yes"}))
    assert own.invoke({"messages": "hi"})["messages"][-1].text == "yes", (
        "CompiledStateGraph is not made of its own attributes any more, as its copy() does."
    )
    assert isinstance(own.with_config(tags=["x"]), Own)
    assert isinstance(own.copy(), Own)


def test_a_nodes_runs_can_be_tagged():
    seen: list[Any] = []
    graph = graph_of(lambda state, config: seen.append(config["tags"]) or {})
    _compat.tag_node(graph, "node", ["moa:layer:1"])
    graph.invoke({"messages": "hi"})
    assert "moa:layer:1" in seen[0], "LangGraph does not give a node's `tags` to its runs any more."


def test_what_runs_inside_inherits_a_configuration():
    inner = RunnableLambda(lambda _, config: config.get("tags"))

    def outer(_: Any) -> Any:
        with _compat.inherited(None):
            alone = inner.invoke(1)
        return alone, _compat.surrounding_config()["metadata"]

    alone, metadata = RunnableLambda(outer).invoke(1, {"metadata": {"a": 1}, "tags": ["x"]})
    assert alone == [], "LangChain's inherited configuration cannot be set aside any more."
    assert metadata["a"] == 1, "LangChain keeps the surrounding configuration elsewhere now."
    assert _compat.surrounding_config() == {}


@pytest.mark.parametrize("how", ["chain", "batch", "abatch"])
async def test_langchain_fills_in_a_limit_of_steps(how):
    seen: list[bool] = []

    class Seen(RunnableLambda):
        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            seen.append(_compat.has_default_recursion_limit(config))
            return input

        async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            return self.invoke(input, config)

    model = Seen(lambda x: x)
    if how == "chain":
        (RunnableLambda(lambda x: x) | model).invoke(1)
    elif how == "batch":
        model.batch([1])
    else:
        await model.abatch([1])
    assert seen == [True], (
        "LangChain fills in its limit of 25 steps in another way: loops in chains would be cut."
    )
    model.invoke(1, {"recursion_limit": 25})
    model.invoke(1)
    assert seen[1:] == [False, False]


async def test_a_chat_model_learns_of_its_run():
    seen: list[bool] = []

    class Model(_compat.ChatModelWithRuns, GenericFakeChatModel):
        def _within(self, run_manager: Any) -> Any:
            from contextlib import nullcontext

            seen.append(run_manager is not None)
            return nullcontext()

    model = Model(messages=(AIMessage("x") for _ in range(9)))
    model.invoke("hi")
    await model.ainvoke("hi")
    assert seen == [True, True], (
        "BaseChatModel does not call _generate_with_cache with its run any more: the models inside "
        "ChatMoA would be no children of its run in traces."
    )


def test_a_model_that_takes_all_configuration_is_known(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    every = init_chat_model("openai:a", configurable_fields="any")
    assert _compat.takes_all_configuration(every), (
        "init_chat_model keeps its configurable fields elsewhere now: one that takes a graph's "
        "configuration for its own would fail in every run instead of being refused."
    )
    for other in (
        init_chat_model("openai:a", configurable_fields="any", config_prefix="m"),
        init_chat_model("openai:a", configurable_fields=("model",)),
        init_chat_model("openai:a"),
    ):
        assert not _compat.takes_all_configuration(other)


def test_clients_of_openais_family_take_options():
    model = ChatOpenAI(model="a", api_key="x", max_retries=7)
    assert set(_compat.clients_of(model)) == set(_compat.CLIENT_FIELDS), (
        "ChatOpenAI keeps its clients elsewhere now: calls would be repeated by them and by us."
    )
    changed = _compat.with_clients(model, lambda _: {"max_retries": 0})
    assert changed.root_client.max_retries == changed.root_async_client.max_retries == 0
    assert model.root_client.max_retries == 7
    http = _compat.http_client_of(model.root_async_client)
    assert hasattr(http, "aclose"), "OpenAI's client keeps its HTTP client elsewhere now."
    assert _compat.http_client_of(model.root_client) is None


async def test_chat_models_of_openais_family_take_completions_that_are_dicts():
    def refused(_: httpx.Request) -> httpx.Response:
        raise AssertionError("the SDK was asked")

    class Completions:
        @property
        def with_raw_response(self) -> Any:
            return self

        async def create(self, **payload: Any) -> Any:
            message = {"role": "assistant", "content": payload["messages"][0]["content"]}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            return SimpleNamespace(parse=lambda: {"model": "a", "choices": choices})

    http_client = httpx.AsyncClient(transport=httpx.MockTransport(refused))
    model = ChatOpenAI(model="a", api_key="x", http_async_client=http_client)
    assert _compat.takes_plain_completions(model), (
        "ChatOpenAI converts completions elsewhere now: models from strings would use the SDK's "
        "objects, which take more CPU time."
    )
    changed = _compat.with_clients(model, lambda _: {}, lambda _: Completions())
    assert (await changed.ainvoke("hi")).text == "hi", (
        "LangChain does not ask its field `async_client` for completions, or takes no dicts."
    )
    assert not isinstance(changed.client, Completions)


async def test_an_undecoded_response_has_the_class_of_the_http_library(server):
    client = openai.AsyncOpenAI(base_url=server.url, api_key="x")
    kind = _compat.response_type_of(client)
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    response = await client.post("/chat/completions", body=body, cast_to=kind)
    assert isinstance(response, kind), "OpenAI's SDK returns responses of another library now."
    assert response.json()["choices"]


async def test_an_http_client_can_be_copied_without_its_connections(server):
    async with httpx.AsyncClient() as client:
        await client.post(f"{server.url}/chat/completions", json={"model": "a", "messages": []})
        twin = _compat.without_connections(client)
        assert twin is not client, "httpx keeps its pool elsewhere now: loops would share it."
        assert twin._transport._pool._connections == []
        assert client._transport._pool._connections
        other = await asyncio.to_thread(lambda: asyncio.run(_ask(twin, server.url)))
        assert other < 500
    mock = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    assert _compat.without_connections(mock) is mock


async def _ask(client: httpx.AsyncClient, url: str) -> int:
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    return (await client.post(f"{url}/chat/completions", json=body)).status_code


def test_a_servers_own_assistant_has_an_id_of_its_graphs_name():
    # Importing the module needs the settings of a server.
    source = Path(distribution("langgraph-api").locate_file("langgraph_api/graph.py")).read_text()
    assert f'NAMESPACE_GRAPH = UUID("{_compat._NAMESPACE}")' in source, (
        "LangGraph Server has other ids for its own assistants: runs of presets that ask for "
        "another mixture would fail, but would not be refused."
    )
    assert "assistant_id = uuid5(NAMESPACE_GRAPH, graph_id)" in source


@pytest.mark.parametrize("package", ["langchain-openai", "langchain-anthropic"])
def test_a_package_has_profiles_of_its_providers_models(package):
    profiles = _compat.model_profiles(package)
    (name, profile), *_ = [(n, p) for n, p in profiles.items() if p.get("tool_calling")]
    assert {"release_date", "text_outputs"} <= profile.keys(), (
        "The profiles of a package have other fields: presets of providers could not choose models."
    )
    provider = package.removeprefix("langchain-")
    model = init_chat_model(f"{provider}:{name}", api_key="none")
    assert model.profile is not None, (
        "The data in data/_profiles.py are not those of `profile` any more: presets of providers "
        "would name models that LangChain does not know."
    )
    assert model.profile["release_date"] == profile["release_date"]


def test_a_package_without_profiles_has_none():
    assert _compat.model_profiles("langchain-together") == {}
    assert _compat.model_profiles("langchain-that-is-not-installed") == {}


async def test_openais_sdk_can_send_through_a_session_of_aiohttp(server):
    made: list[aiohttp.ClientSession] = []

    def session(ssl_context: ssl.SSLContext, limit: int | None) -> aiohttp.ClientSession:
        assert isinstance(ssl_context, ssl.SSLContext)
        made.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit or 0)))
        return made[-1]

    client = _compat.client_through(session)
    assert _compat.sends_through_aiohttp(openai.DefaultAioHttpClient()), (
        "OpenAI's SDK keeps its transport elsewhere now: models would use its slower default."
    )
    try:
        answer = await openai.AsyncOpenAI(
            base_url=server.url, api_key="not used", http_client=client
        ).chat.completions.create(model="a", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content
        assert len(made) == 1
    finally:
        await client.aclose()
    assert made[0].closed
    assert not _compat.sends_through_aiohttp(openai.DefaultAsyncHttpxClient())
