"""When the run is done sooner: an early exit, and a first pass that answers alone."""

from __future__ import annotations

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import ChatMoA, Layer, MoAContext, create_moa
from moa_graph.strategies import (
    Agree,
    JudgedAgreement,
    Route,
    Similar,
    TopK,
    Unchanged,
    route_rates,
)
from tests.mixtures import mixture_of
from tests.nodes.test_nodes import MODES, run

QUESTION = {"messages": "What is the capital of Australia?"}


def three(chat) -> list:
    return [chat(name) for name in ("a", "b", "c")]


def outcomes(state) -> dict[str, str]:
    return {d["step"]: d["outcome"] for d in state["decisions"]}


def all_say(server, text: str) -> None:
    server.answers |= dict.fromkeys("abc", text)


@pytest.mark.parametrize("mode", MODES)
async def test_a_layer_that_agrees_leads_straight_to_the_aggregator(chat, server, mode):
    all_say(server, "Canberra.")
    graph = create_moa(Layer(three(chat), until=Agree()), chat("agg"), layers=4)
    state = await run(graph, mode, QUESTION)
    assert outcomes(state) == {"until_1": "exit"}
    assert {p["layer"] for p in state["proposals"]} == {1}
    assert "3. Canberra." in server.of("agg")[0].system
    assert len(server.of("a")) == (2 if "batch" in mode else 1)


async def test_a_layer_that_does_not_agree_leads_to_the_next(chat, server):
    graph = create_moa(Layer(three(chat), until=Agree()), chat("agg"), layers=4)
    state = await graph.ainvoke(QUESTION)
    assert outcomes(state) == {"until_1": "go_on", "until_2": "go_on"}
    assert {p["layer"] for p in state["proposals"]} == {1, 2, 3}


@pytest.mark.parametrize("layers", [2, 3])
async def test_the_consensus_may_be_the_answer(chat, server, layers):
    server.answers |= {"a": "Perth", "b": "The answer is Canberra.", "c": "canberra"}
    until = Agree(0.6, then="answer")
    graph = create_moa(Layer(three(chat), until=until), chat("agg"), layers=layers)
    shown = ""
    async for mode, event in graph.astream(QUESTION, stream_mode=["messages", "values"]):
        if mode == "values":
            state = event
        else:
            shown += event[0].text
    assert shown == state["messages"][-1].text == "The answer is Canberra."
    assert not server.of("agg")
    assert outcomes(state)["until_1"] == "answer"
    answer = await ChatMoA(graph=graph).ainvoke("Which?")
    assert answer.text == "The answer is Canberra."
    streamed = [c.text async for c in ChatMoA(graph=graph).astream("Which?")]
    assert "".join(streamed) == "The answer is Canberra."


async def test_an_exit_is_drawn_as_a_conditional_edge(chat):
    graph = create_moa(
        Layer(three(chat), until=Agree(), select=TopK(2)), chat("agg"), layers=3
    ).get_graph()
    edges = {(e.source, e.target): e.conditional for e in graph.edges}
    assert edges["until_1", "aggregator"] is True
    assert edges["until_1", "layer_2_a"] is True
    assert ("until_2", "aggregator") not in edges
    assert edges["select_1", "until_1"] is False
    graph = create_moa(Layer(three(chat), until=Agree(then="answer")), chat("agg")).get_graph()
    edges = {(e.source, e.target): e.conditional for e in graph.edges}
    assert edges["until_1", "__end__"] is True
    assert edges["until_1", "aggregator"] is True


async def test_similar_texts_agree(chat, server):
    all_say(server, "The capital of Australia is the city of Canberra")
    server.answers["b"] += "!"
    graph = create_moa(Layer(three(chat), until=Similar(0.9)), chat("agg"), layers=3)
    assert outcomes(await graph.ainvoke(QUESTION)) == {"until_1": "exit"}
    server.answers["b"] = "Perth, surely"
    assert outcomes(await graph.ainvoke(QUESTION)) == {"until_1": "go_on"}


@pytest.mark.parametrize(("says", "way"), [("Yes.", "exit"), ("No", "go_on"), ("Well…", "go_on")])
async def test_a_judge_says_whether_they_agree(chat, server, says, way):
    server.answers["judge"] = says
    until = JudgedAgreement(chat("judge"))
    state = await create_moa(Layer(three(chat), until=until), chat("agg"), layers=3).ainvoke(
        QUESTION
    )
    assert outcomes(state) == {"until_1": way}
    made = state["decisions"][0]
    assert bool(made["error"]) == (says == "Well…")
    assert made["usage"]["output_tokens"] > 0


async def test_a_single_proposal_does_not_agree_with_itself(chat, server):
    graph = create_moa(
        Layer([chat("a"), chat("b?status=400")], until=Agree()), chat("agg"), layers=3
    )
    assert outcomes(await graph.ainvoke(QUESTION)) == {"until_1": "go_on"}


async def test_an_exit_of_an_earlier_turn_is_forgotten(chat, server):
    graph = create_moa(
        Layer(three(chat), until=Agree()), chat("agg"), layers=3, checkpointer=InMemorySaver()
    )
    thread = {"configurable": {"thread_id": "1"}}
    all_say(server, "Canberra.")
    assert outcomes(await graph.ainvoke(QUESTION, thread)) == {"until_1": "exit"}
    server.answers.clear()
    state = await graph.ainvoke({"messages": "And of France?"}, thread)
    assert outcomes(state) == {"until_1": "go_on"}
    assert {p["layer"] for p in state["proposals"]} == {1, 2}
    state = await graph.ainvoke({"messages": "Again?"}, thread, context=MoAContext(layers=2))
    assert {p["layer"] for p in state["proposals"]} == {1}


@tool
def search(query: str) -> str:
    """Search."""
    return query


async def test_what_may_call_tools_is_left_to_the_aggregator(chat, server):
    all_say(server, "Canberra.")
    server.answers["cheap"] = "Canberra."
    for options in (
        {"until": Agree(then="answer")},
        {"route": Route(chat("cheap"), samples=2)},
    ):
        model = ChatMoA(graph=mixture_of(three(chat), chat("agg"), **options))
        message = await model.bind_tools([search]).ainvoke("Search for 'cats'")
        assert message.tool_calls[0]["name"] == "search"
    assert not server.of("cheap")


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda m: Agree(0), ValueError, "above 0"),
        (lambda m: Agree("all"), TypeError, "number"),
        (lambda m: Agree(then="stop"), ValueError, "'aggregate' or 'answer'"),
        (lambda m: Similar(2), ValueError, "at most 1"),
        (lambda m: Agree(parse=3), TypeError, "function"),
        (lambda m: create_moa(Layer([m, m], until=Agree()), m), ValueError, "layers=3"),
        (
            lambda m: create_moa(Layer([m, m], until=Unchanged(then="answer")), m),
            ValueError,
            "layers=3",
        ),
        (lambda m: create_moa(Layer([m, m], until="agrees"), m), ValueError, "mean 'agree'"),
        (lambda m: create_moa(Layer([m, m], until=3), m), TypeError, "until=3"),
        (lambda m: create_moa(Layer([m, m], until=TopK(1)), m), TypeError, "is for select"),
        (Route, ValueError, "judge=model, or"),
        (lambda m: Route(m, judge=m, samples=3), ValueError, "not both"),
        (lambda m: Route(m, samples=1), ValueError, "at least 2"),
        (lambda m: create_moa([m, m], m, route=m), TypeError, "must be a strategy for route"),
    ],
)
def test_what_makes_no_sense_is_refused(chat, make, kind, says):
    with pytest.raises(kind, match=says):
        make(chat("a"))


# --- route or mix --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_samples_that_agree_answer_alone(chat, server, mode):
    server.answers["cheap"] = "Canberra."
    graph = create_moa(three(chat), chat("agg"), route=Route(chat("cheap"), samples=3))
    state = await run(graph, mode, QUESTION)
    assert state["messages"][-1].text == "Canberra."
    assert outcomes(state) == {"first_pass": "alone"}
    assert set(server.labels()) == {"cheap"}
    assert state["proposals"] == []
    usage = state["decisions"][0]["usage"]
    assert usage["output_tokens"] == 3


async def test_samples_that_differ_convene_the_mixture(chat, server):
    graph = create_moa(three(chat), chat("agg"), route=Route(chat("cheap?unstable"), samples=3))
    state = await graph.ainvoke(QUESTION)
    assert outcomes(state) == {"first_pass": "mixture"}
    assert state["messages"][-1].text.startswith("agg:")
    assert len(state["proposals"]) == 3
    assert "cheap: What" in next(iter(state["decisions"][0]["texts"].values()))
    share = create_moa(
        three(chat), chat("agg"), route=Route(chat("cheap?unstable"), samples=3, share=0.3)
    )
    assert outcomes(await share.ainvoke(QUESTION)) == {"first_pass": "alone"}


@pytest.mark.parametrize(("says", "way"), [("yes", "alone"), ("no", "mixture"), ("?", "mixture")])
async def test_a_judge_says_whether_the_first_pass_is_sure(chat, server, says, way):
    server.answers |= {"judge": says, "cheap": "Canberra."}
    route = Route(chat("cheap"), judge=chat("judge"))
    state = await create_moa(three(chat), chat("agg"), route=route).ainvoke(QUESTION)
    assert outcomes(state) == {"first_pass": way}
    assert "Canberra." in server.of("judge")[0].messages[-1]["content"]


async def test_a_first_pass_that_fails_convenes_the_mixture(chat, server):
    route = Route(chat("cheap?status=400"), samples=2)
    state = await create_moa(three(chat), chat("agg"), route=route).ainvoke(QUESTION)
    assert outcomes(state) == {"first_pass": "mixture"}
    assert "the server said 400" in state["decisions"][0]["error"]


async def test_the_rate_of_each_way_is_reported(chat, server):
    server.answers["cheap"] = "Canberra."
    route = Route(chat("cheap"), judge=chat("judge"))
    graph = create_moa(three(chat), chat("agg"), route=route)
    states = []
    for says in ("yes", "no", "no", "yes", "yes"):
        server.answers["judge"] = says
        states.append(await graph.ainvoke(QUESTION))
    assert route_rates(states) == {"alone": 0.6, "mixture": 0.4}
    assert route_rates([]) == {}


async def test_turns_of_a_routed_thread(chat, server):
    server.answers["cheap"] = "Canberra."
    graph = create_moa(
        three(chat),
        chat("agg"),
        layers=3,
        route=Route(chat("cheap"), judge=chat("judge")),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    for turn, says in enumerate(["no", "yes", "no", "yes"], 1):
        server.answers["judge"] = says
        state = await graph.ainvoke({"messages": f"Question {turn}"}, thread)
        assert state["decisions"][0]["turn"] == turn
        assert {p["turn"] for p in state["proposals"]} == ({turn} if says == "no" else set())
        assert len(state["messages"]) == 2 * turn
    answer = await ChatMoA(graph=graph).ainvoke("Which?")
    assert answer.text == "Canberra."
    assert answer.usage_metadata["output_tokens"] == 2
    text = "".join([c.text async for c in ChatMoA(graph=graph).astream("Which?")])
    assert text == "Canberra."
