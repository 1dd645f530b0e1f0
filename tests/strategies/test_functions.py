"""Strategies of one's own: functions, in each place, from Python, a file and an assistant."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from moa_graph import (
    AggregationFailed,
    CallPolicy,
    Layer,
    MoAError,
    Proposal,
    Proposer,
    RunLimits,
    create_moa,
)
from moa_graph.presets import load_preset
from moa_graph.presets.configuration import Configuration
from moa_graph.server.assistants import check_given, mixture
from moa_graph.strategies import Answer, Decision, Run, names, register_strategy, registry

QUESTION = {"messages": "hi"}
MODES = [
    "invoke", "astream", *(pytest.param(m, marks=pytest.mark.full) for m in ("ainvoke", "stream", "batch"))
]  # fmt: skip


async def run(moa, mode, given: Any = QUESTION):
    if mode == "invoke":
        return moa.invoke(given)
    if mode == "stream":
        return list(moa.stream(given, stream_mode="values"))[-1]
    if mode == "astream":
        return [state async for state in moa.astream(given, stream_mode="values")][-1]
    if mode == "batch":
        return moa.batch([given])[0]
    return await moa.ainvoke(given)


def decision(state, step: str) -> Decision:
    return next(d for d in state["decisions"] if d["step"] == step)


async def longest(references: list[Proposal], run: Run, *, count: int = 1) -> list[Proposal]:
    return sorted(references, key=lambda p: -len(p["content"]))[:count]


def longest_blocking(references: list[Proposal], run: Run, *, count: int = 1) -> list[Proposal]:
    time.sleep(0.01)
    return sorted(references, key=lambda p: -len(p["content"]))[:count]


async def same(references: list[Proposal], run: Run) -> bool:
    return len({p["content"] for p in references}) == 1


async def joined(references: list[Proposal], run: Run) -> str:
    return f"{run.question}: " + " | ".join(p["content"] for p in references)


async def short_questions(run: Run) -> str | None:
    return f"alone: {run.question}" if len(run.question) < 3 else None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("select", [longest, longest_blocking, partial(longest, count=1)])
async def test_a_function_selects(chat, server, select, mode):
    server.answers |= {"a": "short", "b": "a longer answer"}
    moa = create_moa(Layer([chat("a"), chat("b")], select=select), chat("agg"))
    state = await run(moa, mode)
    made = decision(state, "select_1")
    assert made["kept"] == ["b"]
    assert made["by"].startswith("longest")
    assert made["left_out"] == {"a": f"not kept by {made['by']}"}
    assert "short" not in server.of("agg")[0].system


@pytest.mark.parametrize("mode", MODES)
async def test_a_function_says_when_to_stop(chat, server, mode):
    moa = create_moa(Layer([chat("a"), chat("b")], until=same), chat("agg"), layers=3)
    assert {p["layer"] for p in (await run(moa, mode))["proposals"]} == {1, 2}
    server.answers |= {"a": "yes", "b": "yes"}
    state = await run(moa, mode)
    assert {p["layer"] for p in state["proposals"]} == {1}
    assert decision(state, "until_1")["by"] == "same"


@pytest.mark.parametrize("mode", MODES)
async def test_a_function_gives_the_answer(chat, server, mode):
    state = await run(create_moa([chat("a"), chat("b")], joined), mode)
    assert state["messages"][-1].text == "hi: a: hi | b: hi"
    assert decision(state, "aggregator")["outcome"] == "written"


@pytest.mark.parametrize("mode", MODES)
async def test_a_function_routes(chat, server, mode):
    moa = create_moa([chat("a")], chat("agg"), route=short_questions)
    state = await run(moa, mode)
    assert state["messages"][-1].text == "alone: hi"
    assert not server.calls
    state = await run(moa, mode, {"messages": "a long question"})
    assert state["messages"][-1].text == "agg: a long question"
    assert decision(state, "first_pass")["outcome"] == "mixture"


RETURNED = {
    "a string": lambda p, a: ("x", "x"),
    "a message": lambda p, a: (AIMessage("y"), "y"),
    "an answer": lambda p, a: (Answer(AIMessage("z")), "z"),
    "a proposal": lambda p, a: (p, p["content"]),
    "reasoning": lambda p, a: ("<think>5?</think>4", "4"),
}


@pytest.mark.parametrize("what", RETURNED)
async def test_what_an_aggregator_may_return(chat, what):
    async def give(references: list[Proposal], run: Run) -> Any:
        return RETURNED[what](references[0], run)[0]

    state = await create_moa([chat("a")], give).ainvoke(QUESTION)
    assert state["messages"][-1].text == RETURNED[what](state["proposals"][0], None)[1]
    chosen = state["messages"][-1].response_metadata.get("chosen_proposal")
    assert (chosen is not None) is (what == "a proposal")


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_asks_models_and_pays_for_them(chat, server, mode):
    async def translated(references: list[Proposal], run: Run) -> str:
        one = await run.ask(chat("translator"), f"Translate: {references[0]['content']}")
        two = await run.ask(chat("translator"), [("system", "Be brief."), ("human", one.text)])
        return two.text

    state = await run(create_moa([chat("a")], translated), mode)
    assert state["messages"][-1].text == "translator: translator: Translate: a: hi"
    made = decision(state, "aggregator")
    assert made["attempts"] == 2
    assert made["usage"]["total_tokens"] == sum(
        call.usage["total_tokens"] for call in server.of("translator")
    )


ASKED: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "retries": ("j?fail_first=1", {}, None),
    "a refused key": ("j?status=401", {}, "401"),
    "a deadline": ("j?hang", {"limits": RunLimits(timeout=1)}, "share of the run's 1"),
    "a budget": ("j", {"limits": RunLimits(tokens=2000)}, "budget"),
    "a quoted key": ("j?echo_key", {}, "failed"),
}


@pytest.mark.parametrize("what", ASKED)
async def test_a_run_asks_as_every_other_call_does(chat, what):
    model, options, says = ASKED[what]
    said: list[str] = []

    async def ask(references: list[Proposal], run: Run) -> str:
        try:
            return (await run.ask(chat(model), "hi")).text
        except MoAError as error:
            said.append(str(error))
            return "not called"

    def spend(messages: Any) -> AIMessage:
        usage = {"input_tokens": 10, "output_tokens": 1985, "total_tokens": 1995}
        return AIMessage("here", usage_metadata=usage)

    proposer = Proposer(RunnableLambda(spend), name="a") if what == "a budget" else chat("a")
    moa = create_moa([proposer], ask, calls=CallPolicy(retries=1), **options)
    state = await moa.ainvoke(QUESTION)
    assert state["messages"][-1].text == ("not called" if says else "j: hi")
    assert not says or says in said[0]
    assert "sk-test" not in str(said)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_blocking_function_delays_no_other_run(chat, mode):
    threads: set[str] = set()

    def slow(references: list[Proposal], run: Run) -> str:
        threads.add(threading.current_thread().name)
        time.sleep(1.0)
        return "slow"

    moa, quick = create_moa([chat("a")], slow), create_moa([chat("a")], chat("agg"))
    waiting = asyncio.create_task(
        asyncio.to_thread(moa.invoke, QUESTION) if mode == "invoke" else moa.ainvoke(QUESTION)
    )
    await asyncio.sleep(0.2)
    await asyncio.wait_for(quick.ainvoke(QUESTION), 0.6)
    assert (await waiting)["messages"][-1].text == "slow"
    assert "MainThread" not in threads


def _raises(error: Exception) -> Any:
    async def fails(*_: Any) -> Any:
        raise error

    return fails


def _returns(value: Any) -> Any:
    async def odd(*_: Any) -> Any:
        return value

    return odd


BAD = {
    "an error": (_raises(KeyError("x")), "KeyError"),
    "nothing": (_returns(None), "must return"),
    "a number": (_returns(3), "must return"),
    "an empty list": (_returns([]), "kept no proposal|must return"),
    "a stranger": (_returns([{"proposer": "z", "content": "z"}]), "must return"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_function_that_fails_is_recorded_and_the_run_goes_on(chat, server, bad):
    function, says = BAD[bad]
    panel = Layer([chat("a"), chat("b")], select=function, until=function)
    state = await create_moa(panel, chat("agg"), layers=3).ainvoke(QUESTION)
    assert state["messages"][-1].text == "agg: hi"
    for step in ("select_1", "until_1"):
        assert re.search(says, decision(state, step)["error"])
    assert len(server.of("a")) == 2


@pytest.mark.parametrize("bad", ["an error", "nothing", "a number"])
async def test_an_aggregator_that_fails_keeps_the_proposals(chat, bad):
    function, _ = BAD[bad]
    with pytest.raises(AggregationFailed) as caught:
        await create_moa([chat("a"), chat("b")], function).ainvoke(QUESTION)
    assert [p["content"] for p in caught.value.proposals] == ["a: hi", "b: hi"]


@pytest.mark.parametrize("bad", ["an error", "a number"])
async def test_a_route_that_fails_convenes_the_mixture(chat, bad):
    function, _ = BAD[bad]
    moa = create_moa([chat("a")], chat("agg"), route=function)
    state = await moa.ainvoke(QUESTION)
    assert state["messages"][-1].text == "agg: hi"
    assert decision(state, "first_pass")["error"]


@pytest.mark.parametrize(
    ("place", "function"),
    [
        ("select", lambda references: references),
        ("until", lambda: True),
        ("aggregator", lambda run: "x"),
        ("route", lambda references, run: "x"),
        ("select", 3),
    ],
)
def test_a_function_with_other_arguments_is_refused(chat, place, function):
    build = {
        "select": lambda: create_moa(Layer([chat("a"), chat("b")], select=function), chat("agg")),
        "until": lambda: create_moa(Layer([chat("a"), chat("b")], until=function), chat("agg")),
        "route": lambda: create_moa([chat("a")], chat("agg"), route=function),
        "aggregator": lambda: create_moa([chat("a")], function),
    }[place]
    with pytest.raises(TypeError, match=r"async def|must be a strategy"):
        build()
    with pytest.raises(TypeError, match="register_strategy"):
        register_strategy(function, place=place, name="mine")


# --- by name ---------------------------------------------------------------------------------


def registered() -> None:
    register_strategy(longest, place="select")
    register_strategy(same, place="until")
    register_strategy(joined, place="aggregator", name="join")
    register_strategy(short_questions, place="route")


FILE = """
layers = 3
aggregator = "join"
route = { strategy = "short_questions" }

[proposers]
proposers = ["openai:a", "openai:b"]
select = [{ strategy = "longest", count = 2 }]
until = "same"
"""


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_registered_functions_run_in_a_mixture_from_a_file(
    tmp_path, server, monkeypatch, mode
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    registered()
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    moa = load_preset(path).create()
    assert (await run(moa, mode))["messages"][-1].text == "alone: hi"
    state = await run(moa, mode, {"messages": "longer"})
    assert state["messages"][-1].text == "longer: a: longer | b: longer"
    assert {d["step"]: d["by"] for d in state["decisions"]}["select_1"] == "longest"
    assert Configuration.of(moa).data() == load_preset(path).data()


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_registered_functions_run_in_an_assistant(server, monkeypatch, mode):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    registered()
    context = {
        "proposers": {
            "proposers": ["openai:a", "openai:b"],
            "select": [{"strategy": "longest", "count": 2}],
            "until": "same",
        },
        "aggregator": "join",
        "route": "short_questions",
        "layers": 3,
    }
    check_given(context)
    moa = await mixture({"configurable": context})
    assert (await run(moa, mode))["messages"][-1].text == "alone: hi"
    state = await run(moa, mode, {"messages": "longer"})
    assert state["messages"][-1].text == "longer: a: longer | b: longer"


PATHS = ["os.system", "os:system", "moa_graph.strategies:TopK", "__import__", "/tmp/x.py:f"]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("place", ["select", "until", "aggregator", "route", "parse"])
def test_an_import_path_is_never_a_name(tmp_path, name, place):
    strategy = {"strategy": name}
    layer: dict[str, Any] = {"proposers": ["openai:a", "openai:b", "openai:c"]}
    data: dict[str, Any] = {"proposers": layer, "aggregator": "openai:d", "layers": 3}
    if place == "parse":
        data["aggregator"] = {"strategy": "vote", "parse": name}
    elif place in ("select", "until"):
        layer[place] = strategy
    else:
        data[place] = strategy
    with pytest.raises(ValueError, match="unknown strategy"):
        Configuration(**data)
    with pytest.raises(ValueError, match="unknown strategy"):
        check_given({k: v for k, v in data.items() if k != "layers"})


def test_a_name_is_given_once_and_for_a_place_that_exists():
    register_strategy(longest, place="select")
    register_strategy(longest, place="select")  # a module that is loaded anew
    with pytest.raises(ValueError, match="already registered for"):
        register_strategy(longest_blocking, place="select", name="longest")
    with pytest.raises(ValueError, match="already registered for"):
        register_strategy(longest, place="select", name="top_k")
    with pytest.raises(ValueError, match="mean 'select'"):
        register_strategy(longest, place="selects")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="letters, digits"):
        register_strategy(longest, place="select", name="no way")

    @register_strategy(place="parse")
    def first_word(text: str) -> str:
        return text.split(maxsplit=1)[0]

    assert registry.as_strategy(
        "aggregator", {"strategy": "vote", "parse": "first_word"}, "x"
    ).parse is first_word  # fmt: skip


def test_an_entry_point_is_loaded_when_a_name_is_not_known(monkeypatch):
    class Entry:
        def load(self) -> None:
            register_strategy(longest, place="select", name="from_a_package")

    names._load_entry_points.cache_clear()
    monkeypatch.setattr(names, "entry_points", lambda group: [Entry()])
    assert names.named("select", "from_a_package", "x") is longest
    names._load_entry_points.cache_clear()
