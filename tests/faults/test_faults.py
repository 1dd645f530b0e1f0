"""Runs every cell of the table of faults."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from moa_graph import (
    AggregationFailed,
    MoAContext,
    NotEnoughProposals,
    Proposer,
    References,
    RunLimits,
    create_moa,
)
from tests.faults.table import (
    ENDLESS,
    MODES,
    PLACES,
    PROPOSER_SECONDS,
    RUN_SECONDS,
    SHORT,
    TABLE,
    Outcome,
    expected,
)

QUESTION = "What is a cat, in a few words?"
HISTORY = [
    HumanMessage("Hello?"),
    AIMessage(
        [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "text", "text": "Hello."},
        ],
        response_metadata={"model_provider": "anthropic"},
    ),
]
CONTEXT = MoAContext(proposer_temperature=0.5, aggregator_temperature=0.5)
HANGS = 2 * RUN_SECONDS  # seconds; no run takes so long, however busy the machine
SERVERS_WORDS = ("the server said", "Incorrect API key", "maximum context length")


async def answer(graph, mode: str, fault: str):
    """The final state; streams are read to the end, tokens too."""
    given = {"messages": [*(HISTORY if fault == "foreign block" else ()), HumanMessage(QUESTION)]}
    context = CONTEXT if fault == "refused setting" else None
    if mode == "invoke":
        return await asyncio.to_thread(graph.invoke, given, context=context)
    if mode == "ainvoke":
        return await graph.ainvoke(given, context=context)
    how = {"stream_mode": ["messages", "values"], "context": context}
    if mode == "stream":
        events = await asyncio.to_thread(lambda: list(graph.stream(given, **how)))
    else:
        events = [event async for event in graph.astream(given, **how)]
    return [state for name, state in events if name == "values"][-1]


def build(chat, behaviour: str, place: str):
    faulty, endless = f"faulty?{behaviour}", behaviour in ENDLESS

    def proposer(model: str, name: str) -> Proposer:
        short = endless and "?" in model
        return Proposer(chat(model), name=name, timeout=SHORT if short else PROPOSER_SECONDS)

    def layer(*models: str) -> list[Proposer]:
        return [proposer(model, name) for model, name in zip(models, "abc", strict=True)]

    good = ("a", "b", "c")
    layers = {
        "layer 1": [layer("a", faulty, "c"), layer(*good)],
        "layer 2": [layer(*good), layer("a", faulty, "c")],
        "all proposers": [layer(*[f"faulty-{n}?{behaviour}" for n in good])] * 2,
        "aggregator": [layer(*good)] * 2,
    }[place]
    aggregator = chat(faulty if place == "aggregator" else "agg")
    # Only an aggregator that never ends is waited for, and that not for long.
    run_timeout = 3.0 if endless and place == "aggregator" else RUN_SECONDS
    return create_moa(
        layers,
        aggregator,
        references=References(window=1_000_000),
        limits=RunLimits(timeout=run_timeout),
    )


def _cells():
    """Every cell in every mode; by default each in one, and no answer is larger than 1 MB."""
    for i, fault in enumerate(TABLE):
        for j, place in enumerate(PLACES):
            for k, mode in enumerate(MODES):
                full = (i + j) % len(MODES) != k or fault == "10 MB answer"
                marks = [pytest.mark.full] if full else []
                yield pytest.param(fault, place, mode, id=f"{fault}-{place}-{mode}", marks=marks)


@pytest.mark.parametrize(("fault", "place", "mode"), list(_cells()))
async def test_every_fault_at_every_place(chat, server, happened, fault, place, mode):
    long = 130 if fault == "references too long" else 1
    for label in ("a", "b", "c", "faulty", "faulty-a", "faulty-b", "faulty-c"):
        server.answers[label] = "alpha beta gamma delta. " * long
    graph = build(chat, TABLE[fault][0], place)
    error = state = None
    try:
        async with asyncio.timeout(HANGS):
            state = await answer(graph, mode, fault)
    except (NotEnoughProposals, AggregationFailed) as raised:
        error = raised

    calls = [c for c in server.calls if c.label.startswith("faulty")]
    requests = len({c.label for c in calls}) and len(calls) // len({c.label for c in calls})
    proposals = state["proposals"] if state else error.proposals
    if error:
        outcome = Outcome(type(error).__name__, requests)
    elif place in ("layer 1", "layer 2"):
        layer = int(place[-1])
        faulty = next(p for p in proposals if (p["layer"], p["proposer"]) == (layer, "b"))
        outcome = Outcome(faulty["status"], requests)
    else:
        outcome = Outcome("answer", requests)
    happened[fault, place, mode] = str(outcome)
    assert outcome == expected(fault, place, mode)

    # No proposal that was answered is lost, each failure says why, and all requests are counted.
    for proposal in proposals:
        usable = proposal["status"] == "ok"
        assert bool(proposal["content"]) == usable
        assert (proposal["error"] is None) == usable
        assert (proposal["usage"] is not None) or not usable
    asked = [c for c in server.calls if c.label != "agg"]
    if place == "aggregator":
        asked = [c for c in asked if not c.label.startswith("faulty")]
    assert sum(p["attempts"] for p in proposals) == len(asked)
    # No error text is shown to a model, or given as an answer.
    for words in SERVERS_WORDS:
        assert not any(words in str(call.messages) for call in server.calls)
        assert not (state and words in state["messages"][-1].text)
    # What nobody waits for any more is not left open.
    if outcome.ends == "timed_out":
        assert all(call.disconnected for call in calls)
