"""A layer is an object: what it takes, what it refuses, and that each has a policy of its own."""

from __future__ import annotations

import inspect
import math
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import (
    CallPolicy,
    ChatMoA,
    Layer,
    MoAGraph,
    NotEnoughProposals,
    ProposalCache,
    Proposer,
    References,
    RunLimits,
    create_moa,
)
from moa_graph.strategies import (
    Agree,
    Analyse,
    ClusterAndFilter,
    Deduplicate,
    Diverse,
    DropoutAndCluster,
    DropoutAndVote,
    JudgedAgreement,
    MostCentral,
    PeerReview,
    Rank,
    Residual,
    Route,
    SelfMoASeq,
    Shuffle,
    Similar,
    Staircase,
    TopK,
    Tree,
    Unchanged,
    Vote,
)
from moa_graph.strategies.experimental import Chunkwise

QUESTION = {"messages": "hi"}
MODEL = RunnableLambda(lambda _: "yes")

OLD = """aggregation_prompt aggregator budget cache cache_policy checkpointer chunkwise context_schema
context_window fenced hedge layer_timeout layers max_concurrent_calls max_retries min_proposals name
proposers quorum retry_policy route run_timeout select staircase store stream_proposals until"""


def six(chat, **more):
    return [chat(f"p{i}", **more) for i in range(6)]


# --- the signature ---------------------------------------------------------------------------


def test_create_moa_has_sixteen_parameters_and_the_changelog_says_where_the_old_ones_went():
    assert len(inspect.signature(create_moa).parameters) <= 16
    table = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert set(OLD.split()) == set(rows)
    for name, place in rows.items():
        assert place.startswith(("dropped: ", "`")), name


def test_help_shows_no_prompt_and_a_graph_is_shown_in_one_line(chat):
    assert "synthesize these responses" not in pydoc.render_doc(create_moa)
    moa = create_moa([Layer([chat("a"), chat("b")], quorum=1), [chat("c")]], Rank(chat("judge")))
    assert repr(moa) == "MoAGraph('moa': [a b] → [c] → Rank(judge))"
    assert repr(create_moa([chat("a")], chat("agg"), layers=3)) == "MoAGraph('moa': 2 × [a] → agg)"
    layer = Layer(["openai:a", Proposer("openai:b", params={"api_key": "sk-1"})], quorum=1)
    assert repr(layer) == (
        "Layer(proposers=[Proposer(model='openai:a'), Proposer(model='openai:b')], quorum=1)"
    )
    assert repr(TopK(2, judge=MODEL)) == "TopK(k=2, judge=RunnableLambda)"


async def test_copies_configurations_and_compiling_again_keep_everything(chat, server):
    layer = Layer([chat("a"), chat("b?hang")], quorum=1, select=Shuffle())
    moa = create_moa(layer, chat("agg"), cache=InMemoryCache())
    for again in (moa.with_config(tags=["x"]), moa.copy({}), moa.builder.compile()):
        assert isinstance(again, MoAGraph)
        assert repr(again) == repr(moa)
        assert again.plan.concurrency == 4
        assert again.nodes["layer_1_a"].tags == ["moa:layer:1", "moa:proposer:a"]
        state = await again.ainvoke(QUESTION)
        assert [p["status"] for p in state["proposals"]] == ["ok", "abandoned"]
    assert len(server.of("a")) == 1  # the cache is kept, too


async def test_a_run_stops_before_a_node_and_goes_on(chat, server):
    moa = create_moa(
        [chat("a")], chat("agg"), checkpointer=InMemorySaver(), interrupt_before=["aggregator"]
    )
    thread = {"configurable": {"thread_id": "1"}}
    await moa.ainvoke(QUESTION, thread)
    assert server.labels() == ["a"]
    assert (await moa.ainvoke(None, thread))["messages"][-1].text == "agg: hi"
    with pytest.raises(ValueError, match="does not support interrupts"):
        ChatMoA(graph=moa)


# --- what is refused -------------------------------------------------------------------------

ARGUMENTS: dict[Any, dict[str, Any]] = {
    Rank: {"judge": MODEL},
    Vote: {},
    MostCentral: {},
    PeerReview: {},
    Analyse: {"writer": MODEL},
    SelfMoASeq: {"writer": MODEL},
    DropoutAndVote: {"writer": MODEL},
    DropoutAndCluster: {"writer": MODEL},
    TopK: {"k": 2},
    Diverse: {"k": 2},
    Deduplicate: {},
    Shuffle: {},
    Tree: {},
    ClusterAndFilter: {"judge": MODEL},
    Residual: {},
    Agree: {},
    Similar: {},
    JudgedAgreement: {"judge": MODEL},
    Unchanged: {},
    Route: {"model": MODEL, "samples": 2},
    Staircase: {},
    Chunkwise: {},
    Layer: {"proposers": ["openai:x", "openai:y"]},
    Proposer: {"model": "openai:x"},
    References: {},
    RunLimits: {"timeout": 3},
    CallPolicy: {},
    ProposalCache: {"cache": InMemoryCache()},
}
PAIRS = [(made, name) for made in ARGUMENTS for name in inspect.signature(made).parameters]


@pytest.mark.parametrize(
    ("made", "name"), PAIRS, ids=[f"{made.__name__}.{name}" for made, name in PAIRS]
)
def test_a_value_of_a_wrong_type_names_the_argument(made, name):
    if (made, name) == (Proposer, "model"):
        return  # said with its place when the graph is built, see test_graph.py
    for wrong in (object(), b"x", math.nan):
        with pytest.raises((TypeError, ValueError), match=name):
            made(**{**ARGUMENTS[made], name: wrong})


@pytest.mark.parametrize("made", ARGUMENTS, ids=lambda made: made.__name__)
def test_an_argument_that_does_not_exist_names_the_nearest(made):
    name = list(inspect.signature(made).parameters)[-1]
    with pytest.raises(TypeError, match=f"no argument '{name}s'.*mean '{name}'"):
        made(**ARGUMENTS[made], **{f"{name}s": 1})
    with pytest.raises(TypeError, match="no argument 'no_such_thing'"):
        made(**ARGUMENTS[made], no_such_thing=1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("quorum", "Layer(quorum=…)"),
        ("fenced", "References(fenced=…)"),
        ("max_retries", "CallPolicy(retries=…)"),
        ("run_timeout", "Layer(timeout=…) or Proposer(timeout=…) or RunLimits(timeout=…)"),
        ("cache_policy", "'cache'"),
        ("agregator", "'aggregator'"),
    ],
)
def test_an_argument_of_another_object_names_that_object(given, meant):
    with pytest.raises(TypeError, match=re.escape(f"{given!r}. Did you mean {meant}?")):
        create_moa(["openai:a"], "openai:a", **{given: 1})


WRONG = {
    "a parameter": (lambda m: create_moa([m], m, layer=3), TypeError, "mean 'layers'"),
    "a name": (lambda m: create_moa([m], m, name=3), TypeError, r"name=3\) must be a string"),
    "fenced": (lambda m: References(fenced="no"), TypeError, "'no'.* must be True or False"),
    "samples": (lambda m: Proposer(m, sample=3), TypeError, "mean 'samples'"),
    "weights": (
        lambda m: create_moa([m], Vote(weights={"no-such": 9})),
        ValueError,
        "names 'no-such'",
    ),
    "weights, nearly": (
        lambda m: create_moa([Proposer(m, name="critic")], Vote(weights={"critik": 9})),
        ValueError,
        "mean 'critic'",
    ),
    "a dict's key": (lambda m: create_moa([m], m, limits={"token": 3}), TypeError, "mean 'tokens'"),
    "a layer's key": (
        lambda m: create_moa({"proposers": [m], "qorum": 1}, m),
        TypeError,
        "mean 'quorum'",
    ),
    "a proposer's key": (
        lambda m: create_moa([m, {"model": m, "nmae": "x"}], m),
        TypeError,
        r"proposers\[1\]: .*mean 'name'",
    ),
    "a strategy's name": (
        lambda m: create_moa(Layer([m, m, m], select="topk"), m),
        ValueError,
        "mean 'top_k'",
    ),
    "a strategy's key": (
        lambda m: create_moa(Layer([m, m], select={"strategy": "shuffle", "sed": 1}), m),
        TypeError,
        "mean 'seed'",
    ),
    "a node": (
        lambda m: create_moa([m], m, interrupt_before=["agregator"]),
        ValueError,
        "mean 'aggregator'",
    ),
    "a provider": (
        lambda m: create_moa(["openai:x"], "openai:x", calls=CallPolicy(concurrent={"opnai": 1})),
        ValueError,
        "mean 'openai'",
    ),
    "the context": (lambda m: create_moa([m], m, context_schema=dict), TypeError, "MoAContext"),
    "the store": (lambda m: create_moa([m], m, store=3), TypeError, "store=3"),
    "the cache": (lambda m: create_moa([m], m, cache={}), TypeError, "LangGraph cache"),
    "another place": (lambda m: create_moa([m], Agree()), TypeError, "is for until"),
    "a class": (lambda m: create_moa([m, m], m, route=Route), TypeError, "route"),
    "settings of an object": (lambda m: Proposer(m, temperature=1), ValueError, "chat model itself"),
    "two trees": (
        lambda m: create_moa(Layer([m] * 4, select=[Tree(2), Tree(3)]), m, layers=3),
        ValueError,
        "more than one Tree",
    ),
    "the only exit": (
        lambda m: create_moa([Layer([m, m], until=Agree())], m),
        ValueError,
        "has no effect with layers=2",
    ),
    "the first comparison": (
        lambda m: create_moa([Layer([m, m], until=Unchanged()), [m, m]], m),
        ValueError,
        "compares a layer with the one before",
    ),
    "reserve and staircase": (
        lambda m: create_moa(Layer(["openai:x"], reserve=["openai:y"]), "openai:x",
                             progressive=Staircase()),
        ValueError,
        "asks another model for a whole answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_typos_never_pass(wrong):
    make, kind, says = WRONG[wrong]
    with pytest.raises(kind, match=says):
        make(MODEL)


def test_limits_calls_and_references_may_be_given_by_position():
    assert RunLimits(60, 9000) == RunLimits(timeout=60, tokens=9000)
    assert CallPolicy(2, {"openai": 3}) == CallPolicy(retries=2, concurrent={"openai": 3})
    assert References("All:", "human", True) == References("All:", place="human", fenced=True)


def test_a_policy_that_graphs_share_may_name_what_only_another_has(chat):
    shared = CallPolicy(concurrent={"openai": 2, "together": 3})
    assert create_moa([chat("a")], chat("b"), calls=shared).plan.calls is shared


# --- each layer has its own ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_each_layer_has_its_own_quorum(chat, server, mode):
    panel = [chat("a"), chat("b"), chat("c"), chat("d"), chat("e?hang"), chat("f?hang")]
    moa = create_moa([Layer(panel, quorum=4), Layer([chat("x"), chat("y?hang")], quorum=1)], MODEL)
    state = moa.invoke(QUESTION) if mode == "invoke" else await moa.ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == [
        *["ok"] * 4, "abandoned", "abandoned", "ok", "abandoned"
    ]  # fmt: skip


async def test_each_layer_has_its_own_timeout_hedge_and_minimum(chat, server):
    first = Layer([chat("a"), chat("b?hang")], timeout=0.3)
    second = Layer([chat("c?slow_first=5"), chat("d")], hedge=0.1, min_proposals=2)
    state = await create_moa([first, second], chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["ok", "timed_out", "ok", "ok"]
    assert len(server.of("c")) == 2
    failing = Layer([chat("e?status=400"), chat("f")], min_proposals=2)
    with pytest.raises(
        NotEnoughProposals, match="Layer 2 gave 1 usable proposals of 2, but min_proposals is 2"
    ):
        await create_moa([first, failing], chat("agg")).ainvoke(QUESTION)


async def test_each_layer_has_its_own_selection(chat, server):
    first, last = Layer(six(chat), select=TopK(2)), Layer(six(chat)[:3], select="shuffle")
    state = await create_moa([first, last], chat("agg")).ainvoke(QUESTION)
    kept = {d["step"]: d["kept"] for d in state["decisions"]}
    assert (len(kept["select_1"]), len(kept["select_2"])) == (2, 3)
    assert "3. " not in server.of("p0")[1].system
    assert "3. " in server.of("agg")[0].system


async def test_each_layer_has_its_own_way_to_show_references(chat, server):
    second = Layer([chat("x")], references=References("SECOND:", fenced=True))
    third = Layer([chat("y")], references=References(place="human"))
    moa = create_moa(
        [[chat("a")], second, third], chat("agg"), references=References("ALL:", reasoning=True)
    )
    state = await moa.ainvoke(QUESTION)
    (x,), (y,), (agg,) = (server.of(name) for name in ("x", "y", "agg"))
    assert "SECOND:" in x.system
    assert "<<<" in x.system
    assert not y.system
    assert "Responses from models:\n1. x: hi" in y.messages[-1]["content"]
    assert agg.system.startswith("ALL:\n1. y: hi")
    assert [p.get("place") for p in state["proposals"]] == [None, "system", "human"]
    assert state["messages"][-1].response_metadata["aggregator"]["place"] == "system"


@pytest.mark.parametrize(
    ("layers", "nodes"),
    [
        (4, ["until_1", "until_2"]),  # behind the third, the aggregator comes in any case
        (3, ["until_1"]),
    ],
)
async def test_one_layer_for_all_has_an_exit_behind_each_but_the_last(chat, server, layers, nodes):
    moa = create_moa(Layer([chat("a"), chat("b")], until=Agree()), chat("agg"), layers=layers)
    assert [node for node in moa.nodes if node.startswith("until")] == nodes
    server.answers |= {"a": "yes", "b": "yes"}
    assert {p["layer"] for p in (await moa.ainvoke(QUESTION))["proposals"]} == {1}


def test_the_last_of_several_layers_may_have_an_exit_that_leads_where_the_run_goes(chat):
    moa = create_moa([[chat("a")], Layer([chat("b"), chat("c")], until=Agree())], chat("agg"))
    assert not [node for node in moa.nodes if node.startswith("until")]


async def test_one_layer_for_all_with_an_answer_has_an_exit_behind_the_last_too(chat, server):
    until = Agree(then="answer")
    moa = create_moa(Layer([chat("a?unstable"), chat("b?unstable")], until=until), MODEL, layers=3)
    assert [node for node in moa.nodes if node.startswith("until")] == ["until_1", "until_2"]
    assert {p["layer"] for p in (await moa.ainvoke(QUESTION))["proposals"]} == {1, 2}
    last = create_moa([[chat("a")], Layer([chat("b"), chat("c")], until=until)], chat("agg"))
    server.answers |= {"b": "yes", "c": "yes"}
    state = await last.ainvoke(QUESTION)
    assert state["messages"][-1].text == "yes"
    assert not server.of("agg")


async def test_a_runs_quorum_holds_where_there_is_room(chat, server):
    moa = create_moa([[chat("a"), chat("b"), chat("c?hang")], [chat("d")]], chat("agg"))
    state = await moa.ainvoke(QUESTION, context={"quorum": 2})
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok", "abandoned", "ok"]
    with pytest.raises(ValueError, match="out of range for every layer"):
        await moa.ainvoke(QUESTION, context={"quorum": 4})


# --- the reserve -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("fault", ["status=400", "empty", "cut=3", "refusal", "malformed"])
async def test_a_failed_proposers_place_is_taken_once_from_the_reserve(chat, server, fault, mode):
    layer = Layer([chat(f"a?{fault}"), chat("b")], reserve=[chat("spare"), chat("unused")])
    moa = create_moa(layer, chat("agg"), calls=CallPolicy(retries=0))
    state = await run(moa, mode)
    first, second = state["proposals"]
    assert (first["status"], first["content"], first["model"]) == ("ok", "spare: hi", "spare")
    assert first["replaces"]["model"] == f"a?{fault}"
    assert first["replaces"]["status"] == "failed"
    assert first["replaces"]["error"]
    assert first["attempts"] == 2
    assert "replaces" not in second
    assert "1. spare: hi" in server.of("agg")[0].system
    assert not server.of("unused")


async def run(moa, mode):
    if mode == "invoke":
        return moa.invoke(QUESTION)
    if mode == "ainvoke":
        return await moa.ainvoke(QUESTION)
    if mode == "stream":
        return list(moa.stream(QUESTION, stream_mode="values"))[-1]
    return [state async for state in moa.astream(QUESTION, stream_mode="values")][-1]


async def test_each_of_the_reserve_takes_one_place_and_may_fail_too(chat, server):
    layer = Layer(
        [chat("a?status=400"), chat("b?status=400"), chat("c?status=400"), chat("d")],
        reserve=[chat("r1"), chat("r2?status=404")],
    )
    state = await create_moa(layer, chat("agg")).ainvoke(QUESTION)
    *three, d = state["proposals"]
    assert sorted(p["status"] for p in three) == ["failed", "failed", "ok"]
    assert sum("replaces" in p for p in three) == 2
    (bad,) = [p for p in three if p["status"] == "failed" and "replaces" in p]
    assert "404" in bad["error"]
    assert "400" in bad["error"]
    assert len(server.of("r1")) == len(server.of("r2")) == 1
    assert d["status"] == "ok"
    # A run of its own has a reserve of its own.
    await create_moa(layer, chat("agg")).ainvoke(QUESTION)
    assert len(server.of("r1")) == 2


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_a_proposer_that_is_late_has_its_place_taken_while_there_is_time(chat, server, mode):
    layer = Layer([Proposer(chat("a?hang"), timeout=0.2), chat("b")], reserve=[chat("spare")])
    state = await run(create_moa(layer, chat("agg")), mode)
    assert [p["model"] for p in state["proposals"]] == ["spare", "b"]
    assert state["proposals"][0]["replaces"]["status"] == "timed_out"
    late = Layer([chat("a?hang"), chat("b")], timeout=0.3, reserve=[chat("too late")])
    state = await run(create_moa(late, chat("agg")), mode)
    assert [p["status"] for p in state["proposals"]] == ["timed_out", "ok"]
    assert not server.of("too late")


async def test_what_a_quorum_left_behind_is_not_replaced_and_a_cache_is_no_place_to_confuse(
    chat, server
):
    layer = Layer([chat("a?hang"), chat("b")], quorum=1, reserve=[chat("spare")])
    state = await create_moa(layer, chat("agg")).ainvoke(QUESTION)
    assert [p["status"] for p in state["proposals"]] == ["abandoned", "ok"]
    cache = InMemoryCache()
    failing = Layer([chat("c?fail_first=1"), chat("b")], reserve=[chat("spare")])
    moa = create_moa(failing, chat("agg"), cache=cache, calls=CallPolicy(retries=0))
    assert (await moa.ainvoke(QUESTION))["proposals"][0]["content"] == "spare: hi"
    assert (await moa.ainvoke(QUESTION))["proposals"][0]["content"] == "c: hi"
