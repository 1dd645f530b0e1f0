"""Every kind of model with every feature, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langgraph.cache.memory import InMemoryCache
from pydantic import BaseModel

from moa_graph import (
    CallPolicy,
    ChatMoA,
    Layer,
    MoAContext,
    NotEnoughProposals,
    Proposer,
    RunLimits,
    create_moa,
)
from tests.sampling import sampled

QUESTION = {"messages": "What is a cat?"}
OPENAI_LIKE = (
    "string",
    "chat model",
    "bound",
    "configured",
    "with retry",
    "with fallbacks",
    "chain",
)
GRAPHS = ("agent", "mixture")


def search(query: str) -> str:
    """Search the web."""
    return query


@pytest.fixture
def make(chat, server, monkeypatch) -> Callable[[str, str], Any]:
    """`make("agent", "a?tps=9")`: that kind of model, around that model of the fake server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)

    def own(model: str) -> Any:
        # A connection belongs to one event loop: that of the run that is inside.
        return chat(model, http_client=httpx.Client(), http_async_client=httpx.AsyncClient())

    def function(model: str) -> RunnableLambda[Any, Any]:
        inner = own(model)

        def ask(messages: Any, config: RunnableConfig) -> Any:
            return inner.invoke(messages, config)

        async def aask(messages: Any, config: RunnableConfig) -> Any:
            return await inner.ainvoke(messages, config)

        return RunnableLambda(ask, afunc=aask)

    def mixture(model: str) -> Any:
        return create_moa([own(model)], own(f"inner-{model.partition('?')[0]}"))

    kinds: dict[str, Callable[[str], Any]] = {
        "string": lambda model: f"openai:{model}",
        "chat model": chat,
        "bound": lambda model: chat(model).bind(user="me"),
        "configured": lambda model: (
            chat(model)
            .configurable_fields(seed=ConfigurableField(id="seed"))
            .with_config(configurable={"seed": 7}, tags=["x"])
        ),
        "with retry": lambda model: chat(model).with_retry(
            stop_after_attempt=2, wait_exponential_jitter=False
        ),
        "with fallbacks": lambda model: chat("gone?status=404").with_fallbacks([chat(model)]),
        "chain": lambda model: (
            ChatPromptTemplate([("system", "You are a pirate."), ("placeholder", "{messages}")])
            | chat(model)
        ),
        "function": function,
        "agent": lambda model: create_agent(
            own(model), tools=[search], system_prompt="You are a pirate."
        ),
        "mixture": mixture,
        "mixture as a chat model": lambda model: ChatMoA(graph=mixture(model)),
    }
    return lambda kind, model: kinds[kind](model)


KINDS = [*OPENAI_LIKE, "function", *GRAPHS, "mixture as a chat model"]


def each_kind(shift: int) -> Any:
    """Every kind, by default in one mode: another one in the next test."""
    return pytest.mark.parametrize(("kind", "mode"), sampled(KINDS, ["sync", "async"], shift))


async def run(graph: Any, mode: str, given: Any = None, **kwargs: Any) -> Any:
    given = given or QUESTION
    if mode == "sync":
        return await asyncio.to_thread(graph.invoke, given, **kwargs)
    return await graph.ainvoke(given, **kwargs)


@each_kind(1)
async def test_cache_hits_where_nothing_changed_and_only_there(make, chat, server, kind, mode):
    cache = InMemoryCache()

    def build(**proposer: Any):
        entry = Proposer(make(kind, "a"), **{"name": "p", **proposer})
        return create_moa([entry], chat("agg"), cache=cache, calls=CallPolicy(retries=0))

    can = kind in (*OPENAI_LIKE, "bound")
    key = {} if can else {"cache_key": "v1"}
    assert not (await run(build(**key), mode))["proposals"][0].get("cached")
    again = (await run(build(**key), mode))["proposals"][0]
    assert again["cached"]
    assert again["content"]
    for changed in (
        run(build(prompt="Be brief.", **key), mode),
        run(build(**key), mode, {"messages": "What is a dog?"}),
        run(build(**key), mode, {"messages": [("system", "Be brief."), ("human", "a cat?")]}),
    ):
        assert not (await changed)["proposals"][0].get("cached")
    if not can:
        for _ in range(2):
            assert not (await run(build(), mode))["proposals"][0].get("cached")


@each_kind(0)
async def test_quorum_leaves_a_late_one_behind(make, chat, server, kind, mode):
    late = Proposer(make(kind, "late?latency=5"), name="late")
    graph = create_moa(Layer([chat("a"), chat("b"), late], quorum=2), chat("agg"))
    async with asyncio.timeout(4):
        state = await run(graph, mode)
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok", "abandoned"]


@each_kind(1)
async def test_hedge_asks_again_or_is_refused(make, chat, server, kind, mode):
    slow = Proposer(make(kind, "slow?slow_first=4"), name="slow")
    if kind in GRAPHS:
        with pytest.raises(ValueError, match=r"hedge=….*graphs"):
            create_moa(Layer([slow], hedge=0.3), chat("agg"))
        return
    graph = create_moa(Layer([slow], hedge=0.3), chat("agg"))
    async with asyncio.timeout(3.5):
        (proposal,) = (await run(graph, mode))["proposals"]
    assert proposal["status"] == "ok"
    assert proposal["attempts"] >= 2


@each_kind(0)
async def test_timeout_ends_a_proposer(make, chat, server, kind, mode):
    late = Proposer(make(kind, "late?latency=5"), name="late", timeout=0.3)
    async with asyncio.timeout(4):
        state = await run(create_moa([chat("a"), late], chat("agg")), mode)
    assert [p["status"] for p in state["proposals"]] == ["ok", "timed_out"]


@each_kind(1)
async def test_retries_count_every_request(make, chat, server, kind, mode):
    once = Proposer(make(kind, "a?fail_first=1"), name="p")
    proposal = (await run(create_moa([once, chat("b")], chat("agg")), mode))["proposals"][0]
    if kind in ("agent", "with fallbacks"):
        # What an agent does may have effects, and fallbacks are an arrangement of the user's own.
        assert proposal["status"] == "failed"
        assert proposal["attempts"] == (2 if kind == "with fallbacks" else 1)
        return
    assert proposal["status"] == "ok"
    assert len(server.of("a")) == 2
    if kind not in ("mixture", "mixture as a chat model"):  # these repeat calls by themselves
        assert proposal["attempts"] == 2


@each_kind(0)
async def test_limits_hold_calls_back(make, chat, server, kind, mode):
    models = [Proposer(make(kind, f"m{i}?latency=0.05"), name=f"p{i}") for i in range(3)]
    probe = create_moa(models, chat("agg"))
    provider = probe.plan.models[0].names[0]
    graph = create_moa(models, chat("agg"), calls=CallPolicy(concurrent={provider: 1}))
    assert [p["status"] for p in (await run(graph, mode))["proposals"]] == ["ok"] * 3
    calls = sorted((c for c in server.calls if c.label.startswith("m")), key=lambda c: c.started)
    # Of proposers of one name; those of functions have names of their own.
    if kind in OPENAI_LIKE:
        assert all(a.ended <= b.started for a, b in pairwise(calls))


@each_kind(1)
async def test_budget_limits_answers_and_is_kept(make, chat, server, kind, mode):
    graph = create_moa(
        [Proposer(make(kind, "a"), name="p")], chat("agg"), limits=RunLimits(tokens=5000)
    )
    (proposal,) = (await run(graph, mode))["proposals"]
    assert proposal["status"] == "ok"
    limits = [
        c.body.get("max_completion_tokens") or c.body.get("max_tokens") for c in server.of("a")
    ]
    assert all(limits) is (kind in OPENAI_LIKE)
    small = create_moa(
        [Proposer(make(kind, "a"), name="p")], chat("agg"), limits=RunLimits(tokens=1)
    )
    if kind in OPENAI_LIKE:
        with pytest.raises(NotEnoughProposals, match="the run's budget of 1 tokens"):
            await run(small, mode)
    else:
        with suppress(NotEnoughProposals):
            assert (await run(small, mode))["messages"][-1].text


@each_kind(0)
async def test_streaming_shows_the_answer_once(make, chat, server, kind, mode):
    server.answers["w"] = server.answers["inner-w"] = "one two three"
    graph = create_moa([chat("a")], make(kind, "w"))

    def collect(events: Any) -> str:
        return "".join(message.text for message, _ in events)

    if mode == "sync":
        given = QUESTION
        text = await asyncio.to_thread(lambda: collect(graph.stream(given, stream_mode="messages")))
    else:
        text = collect([e async for e in graph.astream(QUESTION, stream_mode="messages")])
    assert text == "one two three"
    assert (await run(graph, mode))["messages"][-1].text == text


@each_kind(1)
async def test_temperature_of_a_run_reaches_chat_models(make, chat, server, kind, mode):
    graph = create_moa([Proposer(make(kind, "a"), name="p")], make(kind, "w"))
    context = MoAContext(proposer_temperature=0.3, aggregator_temperature=0.4)
    await run(graph, mode, context=context)
    sent = [server.of(label)[-1].body.get("temperature") for label in ("a", "w")]
    reached = kind in OPENAI_LIKE
    assert sent == ([0.3, 0.4] if reached else [None, None])
    await run(graph, mode)
    assert server.of("a")[-1].body.get("temperature") is None


@each_kind(0)
async def test_references_never_make_a_second_system_message(make, chat, server, kind, mode):
    server.answers["a"] = "PROPOSAL"
    layer = [Proposer(make(kind, "b"), name="p", prompt="Answer in German.")]
    graph = create_moa([[chat("a")], layer], make(kind, "w"))
    for given in (QUESTION, {"messages": [("system", "Be kind."), ("human", "a cat?")]}):
        server.calls.clear()
        await run(graph, mode, given)
        for label in ("b", "w"):
            call = server.of(label)[0]
            roles = [m["role"] for m in call.messages]
            text = str(call.messages)
            own = int(kind in ("chain", "agent") and given is not QUESTION)  # the user's own two
            assert roles.count("system") <= 1 + own
            assert "system" not in roles[1 + own :]
            assert roles[-1] == "user"
            if label == "b":
                assert "PROPOSAL" in text
                assert "Answer in German." in text
            if kind in ("chain", "agent"):
                assert call.messages[0]["content"] == "You are a pirate."


class Answer(BaseModel):
    """An answer."""

    text: str


@each_kind(1)
async def test_structured_output_is_the_aggregators_or_is_refused(make, chat, server, kind, mode):
    model = ChatMoA(graph=create_moa([chat("a")], make(kind, "w")))
    if kind in ("function", *GRAPHS):
        with pytest.raises(ValueError, match=r"not a chat model|structured output"):
            model.with_structured_output(Answer)
        return
    structured = model.with_structured_output(Answer)
    said = structured.invoke("hi") if mode == "sync" else await structured.ainvoke("hi")
    assert isinstance(said, Answer)
