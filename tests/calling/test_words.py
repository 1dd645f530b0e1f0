"""What a model's words become, through whole graphs: references, votes, judges, streams, records."""

from __future__ import annotations

import asyncio
import copy
import pickle
from itertools import permutations
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableBranch, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from moa_graph import (
    AggregationFailed,
    CallPolicy,
    ChatMoA,
    Layer,
    Proposer,
    RunLimits,
    create_moa,
    merge_proposals,
)
from moa_graph.strategies import (
    Agree,
    Analyse,
    Deduplicate,
    PeerReview,
    Rank,
    Residual,
    Route,
    SelfMoASeq,
    Staircase,
    TopK,
    Vote,
)
from tests.mock_openai import completion, mock_openai, refusal

THOUGHT = "SECRET"
SAID = {
    "tags": f"<think>{THOUGHT} 5?</think>4",
    "a closing tag": f"{THOUGHT} 5?</think>\n4",
    "other tags": f"◁think▷{THOUGHT}◁/think▷4",
}
QUESTION = {"messages": "2+2?"}


class Says(BaseChatModel):
    """Says the same each time, in chunks of a few characters."""

    says: str
    size: int = 3
    model: str = "says"
    seen: list[Any] = []

    @property
    def _llm_type(self) -> str:
        return "says"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.says))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        for i in range(0, len(self.says), self.size):
            chunk = AIMessageChunk(self.says[i : i + self.size])
            if run_manager:
                run_manager.on_llm_new_token(
                    str(chunk.content), chunk=ChatGenerationChunk(message=chunk)
                )
            yield ChatGenerationChunk(message=chunk)


def saying(text: str) -> Says:
    return Says(says=text, seen=[])


# --- reasoning reaches nobody --------------------------------------------------------------------

BUILDS = {
    "layers": lambda m: create_moa([m, m], m, layers=3),
    "vote": lambda m: create_moa([m, m], Vote()),
    "rank": lambda m: create_moa([m, m], Rank(saying("<think>1 or 2?</think>2"))),
    "analyse": lambda m: create_moa([m, m], Analyse(m)),
    "peer review": lambda m: create_moa([m, m, m], PeerReview(m)),
    "sequence": lambda m: create_moa([m, m, m], SelfMoASeq(m, window=2)),
    "select": lambda m: create_moa(Layer([m] * 3, select=TopK(1, judge=saying("hm</think>3"))), m, layers=3),
    "until": lambda m: create_moa(Layer([m, m], until=Agree(then="answer")), m, layers=3),
    "route": lambda m: create_moa([m, m], m, route=Route(m, samples=2)),
    "staircase": lambda m: create_moa([m, m], m, layers=3, progressive=Staircase(first=2)),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("build", BUILDS)
async def test_reasoning_reaches_no_other_model_and_no_answer(build, said, mode):
    model = saying(SAID[said])
    moa = BUILDS[build](model)
    if build == "staircase" and said == "a closing tag":
        await moa.ainvoke(QUESTION)  # from then on the models are known to begin so
        model.seen.clear()
    if mode == "invoke":
        state = await asyncio.to_thread(moa.invoke, QUESTION)
    elif mode == "ainvoke":
        state = await moa.ainvoke(QUESTION)
    else:
        modes = ["messages", "values"]
        if mode == "stream":
            events = await asyncio.to_thread(lambda: list(moa.stream(QUESTION, stream_mode=modes)))
        else:
            events = [e async for e in moa.astream(QUESTION, stream_mode=modes)]
        state = [event for kind, event in events if kind == "values"][-1]
        shown = "".join(event[0].text for kind, event in events if kind == "messages")
        if said != "a closing tag":  # it comes when all before it was shown; see the next test
            assert shown.strip() == "4"
    assert state["messages"][-1].text.strip() == "4"
    for messages in model.seen:
        assert not any(THOUGHT in m.text for m in messages)
    for proposal in state["proposals"]:
        assert proposal["content"].strip() == "4"
    if build != "route":
        assert any(THOUGHT in p.get("reasoning", "") for p in state["proposals"])


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_a_model_that_closes_what_it_did_not_open_is_held_back_from_then_on(mode):
    moa = create_moa([saying("5")], saying(SAID["a closing tag"]))
    shown = []
    for _ in range(3):
        if mode == "stream":
            events = await asyncio.to_thread(
                lambda: list(moa.stream(QUESTION, stream_mode="messages"))
            )
        else:
            events = [e async for e in moa.astream(QUESTION, stream_mode="messages")]
        shown.append("".join(message.text for message, _ in events).strip())
    assert shown[1:] == ["4", "4"]


@pytest.mark.parametrize("size", [1, 2, 5, 50])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_chat_moa_streams_the_answer_and_keeps_the_reasoning(mode, size):
    writer = Says(says=f"<think>{THOUGHT} < 5?</think>It is <b>4</b>.", size=size, seen=[])
    model = ChatMoA(graph=create_moa([saying("4")], writer))
    if mode == "sync":
        chunks = await asyncio.to_thread(lambda: list(model.stream("2+2?")))
        whole = await asyncio.to_thread(model.invoke, "2+2?")
    else:
        chunks = [chunk async for chunk in model.astream("2+2?")]
        whole = await model.ainvoke("2+2?")
    streamed = chunks[0]
    for chunk in chunks[1:]:
        streamed += chunk
    for message in (streamed, whole):
        assert message.text == "It is <b>4</b>."
        assert THOUGHT in message.response_metadata["moa"]["aggregator"]["reasoning"]
        assert [b["type"] for b in message.content_blocks] == ["reasoning", "text"]
    assert not any(THOUGHT in chunk.text for chunk in chunks)


class Chunks(Says):
    """Streams these chunks."""

    chunks: list[Any]

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        whole = self.chunks[0]
        for chunk in self.chunks[1:]:
            whole += chunk
        message = AIMessage(whole.content, additional_kwargs=whole.additional_kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        for chunk in self.chunks:
            part = ChatGenerationChunk(message=chunk.model_copy())
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=part)
            yield part


def part(kind: str, text: str, index: int, **more: Any) -> AIMessageChunk:
    return AIMessageChunk([{"type": kind, kind: text, "index": index, **more}])


STREAMED = {
    "an id of the provider's": [
        AIMessageChunk("<think>SECRET</think>", id="msg_1"),
        AIMessageChunk("It is 4.", id="msg_1"),
    ],
    "an id in the first chunk only": [
        AIMessageChunk("<think>SEC", id="msg_1"),
        AIMessageChunk("RET</think>"),
        AIMessageChunk("It is 4."),
    ],
    "a tag's beginning at the end": [
        AIMessageChunk("It is", id="msg_1"),
        AIMessageChunk(" 4.", id="msg_1"),
    ],
    "Gemini": [part("text", "SECRET", 0, thought=True), part("text", "It is 4.", 1)],
    "Anthropic": [part("thinking", "SECRET", 0), part("text", "It is ", 1), part("text", "4.", 1)],
    "DeepSeek": [
        AIMessageChunk("", additional_kwargs={"reasoning_content": "SECRET"}),
        AIMessageChunk("It is 4."),
    ],
    "tags in blocks": [
        part("text", "<think>SECRET</thi", 0),
        part("text", "nk>It is", 0),
        part("text", " 4.", 0),
    ],
}


@pytest.mark.parametrize("mode", ["invoke", "stream", "astream", "ChatMoA", "staircase"])
@pytest.mark.parametrize("shape", STREAMED)
async def test_chunks_in_every_providers_shape_show_the_whole_answer_and_no_more(shape, mode):
    model = Chunks(says="", chunks=STREAMED[shape], seen=[])
    moa = create_moa(
        [model, model], model, progressive=Staircase() if mode == "staircase" else None
    )
    if mode == "invoke":
        text = (await moa.ainvoke(QUESTION))["messages"][-1].text
    elif mode == "stream":
        events = await asyncio.to_thread(lambda: list(moa.stream(QUESTION, stream_mode="messages")))
        text = "".join(message.text for message, _ in events)
    elif mode == "ChatMoA":
        text = "".join([chunk.text async for chunk in ChatMoA(graph=moa).astream("2+2?")])
    else:
        events = [e async for e in moa.astream(QUESTION, stream_mode="messages")]
        text = "".join(message.text for message, _ in events)
    assert text == "It is 4."
    assert "SECRET" not in "".join(m.text for messages in model.seen for m in messages)


@pytest.mark.parametrize("place", ["node", "chat model in a node"])
async def test_streams_of_a_graph_around_show_no_reasoning(place):
    moa = create_moa([saying("4")], saying(SAID["tags"]))
    model = ChatMoA(graph=moa)
    parent = StateGraph(MessagesState)
    if place == "node":
        parent.add_node("advise", moa)
    else:
        parent.add_node("advise", lambda state: {"messages": [model.invoke(state["messages"])]})
    parent.add_edge(START, "advise")
    graph = parent.compile()
    for subgraphs in (False, True):
        events = [
            e async for e in graph.astream(QUESTION, stream_mode="messages", subgraphs=subgraphs)
        ]
        parts = [e[-1] if subgraphs else e for e in events]
        text = "".join(m.text for m, meta in parts if "moa_proposer" not in meta)
        assert text.strip() == "4"


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
async def test_the_event_stream_shows_no_reasoning():
    moa = create_moa([saying("4")], saying(SAID["tags"]))
    run = await moa.astream_events(QUESTION, version="v3")
    texts = [await message.text async for message in run.messages]
    assert "".join(map(str, texts)).strip() == "4"


async def test_an_aggregator_that_only_thinks_fails():
    for writer in ("<think>hm", "hm</think>", "<think>hm</think>\n"):
        with pytest.raises(AggregationFailed, match="only reasoning"):
            await create_moa([saying("4")], saying(writer)).ainvoke(QUESTION)


# --- who really answered ------------------------------------------------------------------------


def openai(name: str, status: int = 200, answers_as: str | None = None) -> ChatOpenAI:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}

    def serve(body: dict[str, Any], size: int) -> httpx.Response:
        if status != 200:
            return refusal("no", status)
        return completion(name, answers_as or name, usage=usage)

    return mock_openai(serve, name, max_retries=0)


ANSWERED = {  # who answers, and after how many requests
    "alone": (lambda: openai("dear"), "dear", 1),
    "a fallback": (lambda: openai("cheap", 404).with_fallbacks([openai("dear")]), "dear", 2),
    "the second fallback": (
        lambda: openai("a", 404).with_fallbacks([openai("b", 400), openai("dear")]),
        "dear",
        3,
    ),
    "no fallback needed": (lambda: openai("dear").with_fallbacks([openai("b")]), "dear", 1),
    "nested": (
        lambda: (
            openai("a", 404)
            .with_fallbacks([openai("b", 404)])
            .with_fallbacks([openai("dear").bind(user="me")])
        ),
        "dear",
        3,
    ),
    "a branch": (
        lambda: RunnableBranch((lambda m: False, openai("a")), openai("dear")),
        "dear",
        1,
    ),
    "a router": (lambda: RunnableLambda(lambda m: openai("dear")), "RunnableLambda", 1),
    "a router of the provider's": (lambda: openai("auto", answers_as="dear"), "dear", 1),
    "a dated name": (lambda: openai("dear", answers_as="dear-2026-01-01"), "dear", 1),
    "a name without its maker": (lambda: openai("maker/dear", answers_as="dear"), "maker/dear", 1),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("who", ANSWERED)
async def test_the_model_that_answered_is_named_with_all_attempts(who, mode):
    make, name, attempts = ANSWERED[who]
    moa = create_moa([make()], make())
    model = ChatMoA(graph=moa)
    message = model.invoke("hi") if mode == "sync" else await model.ainvoke("hi")
    record = message.response_metadata["moa"]
    (proposal,) = record["proposals"]
    if who != "a router":  # nothing says what a function will choose: its answer's model does
        assert (proposal["model"], proposal["attempts"]) == (name, attempts)
        assert record["aggregator"]["model"] == name
    else:
        assert proposal["model"] == "dear"
    assert record["aggregator"]["attempts"] == attempts
    asked = proposal.get("asked_model")
    assert (asked is None) is (who != "a router" and moa.plan.models[0].name == name)


async def test_price_and_votes_are_of_the_model_that_answered():
    model = openai("cheap", 404).with_fallbacks([openai("dear")])
    budget = RunLimits(usd=25, prices={"cheap": (1.0, 1.0), "dear": (10.0, 10.0)})
    moa = create_moa(
        [model, model, model],
        openai("cheap"),
        limits=budget,
        calls=CallPolicy(concurrent={"openai": 1}),
    )
    state = await moa.ainvoke({"messages": "hi"})
    # Each costs ten dollars and not one: the third is not asked.
    assert [p["status"] for p in state["proposals"]].count("abandoned") == 1
    votes = Vote(weights={"dear": 5.0, "a": 2.0, "b": 2.0})
    proposers = [Proposer(openai("a")), Proposer(openai("b")), Proposer(model, name="c")]
    state = await create_moa(proposers, votes).ainvoke({"messages": "hi"})
    assert state["messages"][-1].text == "dear"


def test_an_unknown_price_of_a_fallback_is_told_when_the_graph_is_built():
    model = openai("cheap").with_fallbacks([openai("no-such-model")])
    with pytest.raises(ValueError, match="no-such-model"):
        create_moa([model], openai("cheap"), limits=RunLimits(usd=1, prices={"cheap": (1.0, 1.0)}))


# --- a person's edit ----------------------------------------------------------------------------


def reading(prefix: str = "read") -> RunnableLambda[Any, Any]:
    def read(messages: list[Any]) -> AIMessage:
        listed = messages[0].text.partition("models:")[2]
        return AIMessage(f"{prefix}{listed}")

    return RunnableLambda(read)


EDITS = {  # what a person writes: what the aggregator then reads
    "whole record": (lambda p: {**p, "content": "edited"}, "edited"),
    "text that sorts lower": (lambda p: {**p, "content": "a"}, "a"),
    "text that sorts higher": (lambda p: {**p, "content": "zzz"}, "zzz"),
    "fewer attempts": (lambda p: {**p, "content": "edited", "attempts": 0}, "edited"),
    "without an id": (
        lambda p: {**{k: v for k, v in p.items() if k != "id"}, "content": "edited"},
        "edited",
    ),
    "only the text": (
        lambda p: {"layer": p["layer"], "proposer": p["proposer"], "content": "edited"},
        "edited",
    ),
    "by its id and place": (
        lambda p: {k: p[k] for k in ("id", "layer", "proposer")} | {"content": "edited"},
        "edited",
    ),
    "by its id alone": (lambda p: {"id": p["id"], "content": "edited"}, "edited"),
    "half an emoji": (lambda p: {**p, "content": "edited \ud83d"}, "edited �"),
    "taken out": (lambda p: {**p, "status": "failed", "content": ""}, None),
    "emptied": (lambda p: {**p, "content": ""}, None),
}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("edit", EDITS)
def test_a_persons_edit_is_what_later_layers_read(edit, times):
    change, expected = EDITS[edit]
    proposers = [Proposer(saying("the answer is 5"), name=name) for name in "ab"]
    moa = create_moa(proposers, reading(), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    moa.invoke(QUESTION, thread, interrupt_before=["aggregator"])
    for turn in range(times):
        proposal = moa.get_state(thread).values["proposals"][0]
        changed = (
            change(proposal) if turn == times - 1 else {**proposal, "content": f"draft {turn}"}
        )
        moa.update_state(thread, {"proposals": [changed]}, as_node="layer_1_a")
    said = moa.invoke(None, thread)["messages"][-1].text
    texts = [expected, "the answer is 5"] if expected else ["the answer is 5"]
    assert said == "read" + "".join(f"\n{i}. {text}" for i, text in enumerate(texts, 1))


def test_a_failed_proposal_is_usable_with_a_persons_text():
    def fails(_: Any) -> Any:
        raise ValueError("broken")

    moa = create_moa(
        [Proposer(RunnableLambda(fails), name="a"), Proposer(saying("5"), name="b")],
        reading(),
        checkpointer=InMemorySaver(),
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    moa.invoke(QUESTION, thread, interrupt_before=["aggregator"])
    failed = moa.get_state(thread).values["proposals"][0]
    moa.update_state(thread, {"proposals": [{**failed, "content": "4"}]}, as_node="layer_1_a")
    state = moa.invoke(None, thread)
    assert state["messages"][-1].text == "read\n1. 4\n2. 5"
    assert (state["proposals"][0]["status"], state["proposals"][0]["error"]) == ("ok", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"content": "x"},
        {"layer": 1, "proposer": "a", "content": None},
        {"layer": 1, "proposer": "a", "content": 4},
        {"layer": "1", "proposer": "a", "content": "x"},
        {"layer": 1, "content": "x"},
    ],
    ids=str,
)
def test_an_edit_that_says_too_little_is_refused(wrong):
    moa = create_moa([Proposer(saying("5"), name="a")], reading(), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    moa.invoke(QUESTION, thread, interrupt_before=["aggregator"])
    with pytest.raises(ValueError, match=r"proposals\.0"):
        moa.update_state(thread, {"proposals": [wrong]}, as_node="layer_1_a")
    assert moa.invoke(None, thread)["messages"][-1].text


def test_a_person_can_add_a_proposal():
    moa = create_moa([Proposer(saying("5"), name="a")], reading(), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    moa.invoke(QUESTION, thread, interrupt_before=["aggregator"])
    moa.update_state(thread, {"proposals": [{"layer": 1, "proposer": "me", "content": "4"}]})
    assert sorted(moa.invoke(None, thread)["messages"][-1].text) == sorted("read\n1. 5\n2. 4")


@pytest.mark.parametrize("select", [Deduplicate(), Residual()], ids=["kept", "shortened"])
def test_an_edit_after_a_selection_is_read(select):
    texts = ["It is 4. Cats sleep.", "It is 4. Dogs bark all night."]
    proposers = [Proposer(saying(text), name=name) for text, name in zip(texts, "ab", strict=True)]
    moa = create_moa(
        Layer(proposers, select=select), reading(), layers=2, checkpointer=InMemorySaver()
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    moa.invoke(QUESTION, thread, interrupt_before=["aggregator"])
    for proposal in moa.get_state(thread).values["proposals"]:
        edited = {**proposal, "content": f"edited {proposal['proposer']}"}
        moa.update_state(thread, {"proposals": [edited]}, as_node="select_1")
    said = moa.invoke(None, thread)["messages"][-1].text
    assert "edited a" in said
    assert "edited b" in said


def test_records_of_proposers_are_merged_whatever_their_order():
    def record(**fields: Any) -> Any:
        given = {"layer": 1, "proposer": "a", "model": "m", "content": "x", "status": "ok"}
        given |= {"error": None, "usage": None, "latency": 0.0, "attempts": 1, "turn": 1}
        return {**given, **fields}

    records = [record(id="1", status="failed"), record(id="2"), record(id="3", attempts=2)]
    for order in permutations(records):
        merged: list[Any] = []
        for one in order:
            merged = merge_proposals(merged, [one])
        assert [p["id"] for p in merged] == ["3"]
    again = merge_proposals(merged, merged)
    assert again == merged


# --- too long -----------------------------------------------------------------------------------

TOO_LONG = [
    (422, "`inputs` tokens + `max_new_tokens` must be <= 32769. Given: 33000 `inputs` tokens"),
    (413, "Request too large for model `m` on tokens per minute (TPM): Limit 6000"),
    (413, "Payload Too Large"),
    (429, "Request too large for gpt on tokens per min (TPM): Limit 6, Requested 9."),
    (400, "The input token count (1200000) exceeds the maximum number of tokens allowed"),
    (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    (400, "The decoder prompt (length 5001) is longer than the maximum model length of 4096."),
    (400, "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"),
    (400, "prompt is too long: 210000 tokens > 200000 maximum"),
    (400, "Range of input length should be [1, 129024]"),
    (400, "Please reduce the length of the messages or completion."),
    (400, "Too many input tokens"),
    (400, "Prompt exceeds limit of 8192"),
    (400, "This model's maximum is 8192, you requested 9000"),
    (400, "输入长度超过限制"),
    (500, "the request exceeds the available context size"),
    (400, "The sequence has 5000 tokens; the model was trained with 4096"),
]


def limited(status: int, text: str, asked: list[int], limit: int = 6000) -> ChatOpenAI:
    def serve(body: dict[str, Any], size: int) -> httpx.Response:
        asked.append(size)
        return refusal(text, status) if size > limit else completion("1")

    return mock_openai(serve)


@pytest.mark.parametrize("reader", ["aggregator", "layer", "judge"])
@pytest.mark.parametrize(("status", "text"), TOO_LONG)
async def test_too_long_is_answered_by_shorter_references(status, text, reader):
    asked: list[int] = []
    model = limited(status, text, asked)
    long = [saying("word " * 4000), saying("other " * 4000)]
    moa = {
        "aggregator": lambda: create_moa(long, model),
        "layer": lambda: create_moa([long, [model]], saying("4")),
        "judge": lambda: create_moa(long, Rank(model)),
    }[reader]()
    state = await moa.ainvoke(QUESTION)
    assert state["messages"][-1].text
    assert not any(p["status"] != "ok" for p in state["proposals"])
    assert not any(d["error"] for d in state.get("decisions", ()))
    assert 2 <= len(asked) <= 5


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "Invalid access token"),
        (400, "The image is broken"),
        (401, "prompt is too long"),
        (404, "context length"),
        (400, "Invalid schema for function 'f': In context=('properties',), tokens"),
        (400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        (400, "Your credit balance is too low to buy tokens"),
        (400, "image too large"),
    ],
)
async def test_other_errors_are_not_answered_so(status, text):
    asked: list[int] = []
    moa = create_moa([saying("word " * 4000)], limited(status, text, asked))
    with pytest.raises(AggregationFailed):
        await moa.ainvoke(QUESTION)
    assert len(asked) == 1


async def test_shortening_ends_where_it_does_not_help():
    asked: list[int] = []
    moa = create_moa([saying("word " * 40_000)], limited(400, "bad tokens", asked, limit=0))
    with pytest.raises(AggregationFailed):
        await moa.ainvoke(QUESTION)
    assert len(asked) == 5


# --- copies ----------------------------------------------------------------------------------------


def by_name() -> Any:
    return create_moa(
        Layer(["openai:a", Proposer("openai:b", samples=2)], quorum=1), Rank("openai:j"), layers=3
    )


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy", "model_copy"])
def test_graphs_from_strings_and_chat_moa_can_be_copied(how, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    graph = by_name().with_config(tags=["x"])
    model = ChatMoA(graph=graph, temperature=0.5, context={"layers": 2})
    copies = {
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "model_copy": lambda one: (
            one.model_copy(deep=True) if isinstance(one, ChatMoA) else one.copy()
        ),
    }[how]
    again, chat = copies(graph), copies(model)
    assert again.get_graph().draw_mermaid() == graph.get_graph().draw_mermaid()
    assert again.config["tags"] == ["x"]
    assert [m.name for m in again.plan.models] == [m.name for m in graph.plan.models]
    assert (chat.temperature, chat.context.layers) == (0.5, 2)
    assert chat._identifying_params == model._identifying_params


def test_a_graph_with_limits_of_calls_can_be_copied(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    graph = create_moa(["openai:a"], "openai:m", calls=CallPolicy(1, {"openai": 2}))
    loaded = pickle.loads(pickle.dumps(graph))
    assert loaded.plan.calls == graph.plan.calls
    assert loaded.plan.calls.slots.names == {"openai"}
    for again in (copy.deepcopy(graph), copy.copy(graph)):
        assert again.plan.calls.slots is graph.plan.calls.slots


def test_a_copied_graph_answers(chat, server):
    moa = create_moa([chat("a")], chat("agg"))
    for again in (copy.deepcopy(moa), copy.copy(moa), moa.copy()):
        assert again.invoke(QUESTION)["messages"][-1].text == "agg: 2+2?"
    assert copy.deepcopy(ChatMoA(graph=moa)).invoke("hi").text == "agg: hi"


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: create_moa([RunnableLambda(lambda _: "x")], "openai:a"), r"proposers\[0\]"),
        (lambda: create_moa(["openai:a", openai("b")], "openai:a"), r"proposers\[1\]"),
        (lambda: create_moa(["openai:a"], Vote(parse=lambda t: t)), "aggregator"),
        (lambda: create_moa(["openai:a"], "openai:a", checkpointer=InMemorySaver()), "checkpoint"),
    ],
)
def test_what_cannot_be_pickled_is_named(build, what, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with pytest.raises(TypeError, match=f"cannot be pickled: {what}.*Give models as"):
        pickle.dumps(build())
