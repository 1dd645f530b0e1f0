"""What LangSmith shows of a run: the tree as a receiver of its protocol rebuilds it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from langchain.agents import create_agent
from langchain_core.tracers.langchain import wait_for_all_tracers
from langgraph.graph import START, MessagesState, StateGraph
from langsmith import run_trees

from moa_graph import ChatMoA, Layer, NotEnoughProposals, Proposer, create_moa
from tests.fake_server import eventually
from tests.langsmith_receiver import LangSmithReceiver, TracedRun, forget_client
from tests.mixtures import mixture_of


@pytest.fixture
def traced(monkeypatch) -> Iterator[callable]:
    """`traced(receiver)` traces to that receiver from now on."""
    used = []

    def start(receiver: LangSmithReceiver) -> LangSmithReceiver:
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_API_KEY", "ls-test")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", receiver.url)
        forget_client()
        used.append(receiver)
        return receiver

    yield start
    forget_client()


@pytest.fixture
def receiver(traced) -> Iterator[LangSmithReceiver]:
    with LangSmithReceiver() as server:
        yield traced(server)


def trees(receiver: LangSmithReceiver) -> list[TracedRun]:
    """The trees, once all has been sent."""
    wait_for_all_tracers()
    return receiver.roots


def mixture(chat, **options):
    proposers = [
        chat("a"),
        Proposer(chat("b?status=401"), name="refused"),
        Proposer(chat("c?status=500&times=1"), name="shaky"),
        chat("d"),
    ]
    return mixture_of(proposers, chat("agg"), layers=3, **options)


TREE = """\
moa [chain]
  layer_1_a [chain]
    ChatOpenAI [llm]
  layer_1_d [chain]
    ChatOpenAI [llm]
  layer_1_refused [chain]  ! AuthenticationError: the provider refused the API key (check that it is valid)
    ChatOpenAI [llm]  ! an error
  layer_1_shaky [chain]
    ChatOpenAI [llm]  ! an error
    ChatOpenAI [llm]
  layer_2_a [chain]
    ChatOpenAI [llm]
  layer_2_d [chain]
    ChatOpenAI [llm]
  layer_2_refused [chain]  ! AuthenticationError: the provider refused the API key (check that it is valid)
    ChatOpenAI [llm]  ! an error
  layer_2_shaky [chain]
    ChatOpenAI [llm]
  aggregator [chain]
    ChatOpenAI [llm]"""


def drawn(tree: TracedRun) -> str:
    """The tree, the proposers of a layer by their names."""
    for run in tree.walk():
        run.children.sort(key=lambda r: (r.metadata.get("langgraph_step") or 0, r.name))
    # How a client of OpenAI's calls its errors, and what it says of them, depends on its version.
    text = re.sub(r"! \w+Error\(.*", "! an error", tree.drawn())
    return text.replace("! OpenAI", "! ")


@pytest.mark.parametrize(
    ("protocol", "path", "encoding"),
    [
        ({}, "/runs/multipart", "zstd"),
        ({"compressed": False}, "/runs/multipart", ""),
        ({"compressed": False, "multipart": False}, "/runs/batch", ""),
    ],
    ids=["compressed", "multipart", "batch"],
)
async def test_a_run_is_the_tree_of_the_contract(chat, traced, protocol, path, encoding):
    with LangSmithReceiver(**protocol) as receiver:
        traced(receiver)
        if encoding:  # until it knows what the server takes, the client does not compress
            client = run_trees.get_cached_client()
            await eventually(lambda: client.compressed_traces is not None)
        await mixture(chat).ainvoke({"messages": "hi"})
        (tree,) = trees(receiver)
    assert drawn(tree) == TREE
    assert set(receiver.messages) == {(path, encoding)}


async def test_every_model_call_has_its_tags_metadata_inputs_outputs_and_tokens(chat, receiver):
    await mixture(chat).ainvoke(
        {"messages": "hi"}, {"tags": ["mine"], "metadata": {"user": "42"}, "run_name": "my run"}
    )
    (tree,) = trees(receiver)
    assert tree.name == "my run"
    assert tree.outputs["messages"][-1]["content"] == "agg: hi"
    assert [p["status"] for p in tree.outputs["proposals"]].count("failed") == 2
    for run in tree.walk():
        assert "mine" in run.tags
        assert run.metadata["user"] == "42"
    for layer in (1, 2):
        for name, model in (("a", "a"), ("d", "d"), ("shaky", "c?status=500&times=1")):
            node = tree.find(f"layer_{layer}_{name}")
            assert {f"moa:layer:{layer}", f"moa:proposer:{name}"} <= set(node.tags)
            assert (node.metadata["moa_layer"], node.metadata["moa_proposer"]) == (layer, name)
            assert node.metadata["moa_status"] == "ok"
            assert node.outputs["proposals"][0]["status"] == "ok"
            call = node.children[-1]
            assert {f"moa:layer:{layer}", f"moa:proposer:{name}"} <= set(call.tags)
            assert call.metadata["ls_model_name"] == model
            assert call.metadata["ls_provider"] == "openai"
            sent = [m["kwargs"]["content"] for m in call.inputs["messages"][0]]
            assert sent[-1] == "hi"
            assert ("a: hi" in sent[0]) == (layer == 2)
            assert "error" not in sent[0].lower()
            said = call.outputs["generations"][0][0]["message"]["kwargs"]["content"]
            assert said == f"{model.partition('?')[0]}: hi"
            assert call.tokens["output_tokens"] > 0
    assert tree.find("layer_1_shaky").metadata["moa_attempts"] == 2
    refused = tree.find("layer_1_refused")
    assert refused.metadata["moa_status"] == "failed"
    assert refused.outputs["proposals"][0]["error"] == refused.error
    assert "sk-test" not in str([run.data for run in tree.walk()])
    aggregator = tree.find("aggregator")
    assert {"moa:layer:3", "moa:aggregator"} <= set(aggregator.tags)
    assert aggregator.children[0].metadata["ls_model_name"] == "agg"
    assert aggregator.children[0].tokens["input_tokens"] > 50


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
async def test_an_abandoned_proposer_has_ended_and_says_why(chat, receiver, mode):
    moa = create_moa(
        Layer([chat("a"), Proposer(chat("b?hang"), name="hung")], quorum=1, grace=0.1), chat("agg")
    )
    if mode == "invoke":
        await asyncio.to_thread(moa.invoke, {"messages": "hi"})
    elif mode == "ainvoke":
        await moa.ainvoke({"messages": "hi"})
    elif mode == "stream":
        await asyncio.to_thread(list, moa.stream({"messages": "hi"}, stream_mode="messages"))
    else:
        assert [part async for part in moa.astream({"messages": "hi"}, stream_mode="messages")]
    (tree,) = trees(receiver)
    hung = tree.find("layer_1_hung")
    assert hung.metadata["moa_status"] == "abandoned"
    assert "quorum" in hung.error
    assert hung.children[0].ended
    assert "the layer ended with 1 answers" in hung.children[0].error
    assert not [run.name for run in tree.walk() if not run.ended]
    assert tree.error is None


async def test_the_second_request_of_a_hedge_is_a_run_of_the_same_proposer(chat, receiver):
    moa = create_moa(Layer([Proposer(chat("a?slow_first=9"), name="slow")], hedge=0.1), chat("agg"))
    await moa.ainvoke({"messages": "hi"})
    (tree,) = trees(receiver)
    first, second = tree.find("layer_1_slow").children
    assert "hedge" in first.error
    assert second.error is None
    assert second.outputs


async def test_a_failed_run_is_traced_to_its_end(chat, receiver):
    moa = create_moa([chat("a?status=400")], chat("agg"))
    with pytest.raises(NotEnoughProposals):
        await moa.ainvoke({"messages": "hi"})
    (tree,) = trees(receiver)
    assert "NotEnoughProposals" in tree.error
    assert not [run.name for run in tree.walk() if not run.ended]


async def test_a_cancelled_run_leaves_no_call_unended(chat, receiver, server):
    moa = create_moa([chat("a?hang"), chat("b?hang")], chat("agg"))
    task = asyncio.create_task(moa.ainvoke({"messages": "hi"}))
    await eventually(lambda: len(server.of("a")) and len(server.of("b")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls = [run for root in trees(receiver) for run in root.walk() if run.kind == "llm"]
    assert [call.error[:14] for call in calls] == ["CancelledError"] * 2
    assert all(call.ended for call in calls)


SHAPE = """\
moa [chain]
  layer_1_a [chain]
    ChatOpenAI [llm]
  layer_1_b [chain]
    ChatOpenAI [llm]
  aggregator [chain]
    ChatOpenAI [llm]"""


async def test_inside_an_agent_the_graph_is_below_its_chat_model(chat, receiver):
    moa = create_moa([chat("a"), chat("b")], chat("agg"))
    agent = create_agent(ChatMoA(graph=moa), tools=[], name="agent")
    await agent.ainvoke({"messages": [("user", "hi")]})
    (tree,) = trees(receiver)
    (model,) = tree.children
    (chat_moa,) = model.children
    assert (tree.name, model.name, chat_moa.name) == ("agent", "model", "ChatMoA")
    assert chat_moa.kind == "llm"
    assert drawn(chat_moa.children[0]) == SHAPE
    assert len(chat_moa.children) == 1
    assert chat_moa.metadata["ls_provider"] == "moa"


async def test_inside_a_parent_graph_it_is_below_its_node(chat, receiver):
    moa = create_moa([chat("a"), chat("b")], chat("agg"))
    parent = StateGraph(MessagesState)
    parent.add_node("advise", moa)
    parent.add_edge(START, "advise")
    await parent.compile(name="parent").ainvoke({"messages": "hi"})
    (tree,) = trees(receiver)
    assert tree.name == "parent"
    assert tree.children[0].name == "advise"
    (advised,) = [run for run in tree.walk() if run.name == "moa"] or [tree.children[0]]
    assert drawn(advised).splitlines()[1:] == SHAPE.splitlines()[1:]


@pytest.mark.parametrize("wrapped", [False, True], ids=["graph", "ChatMoA"])
@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_in_a_batch_no_run_is_under_another_runs_parent(chat, receiver, mode, wrapped):
    moa = create_moa([chat("a"), chat("b")], chat("agg"))
    questions = [f"question {i}" for i in range(20)]
    runnable = ChatMoA(graph=moa) if wrapped else moa
    inputs = questions if wrapped else [{"messages": question} for question in questions]
    if mode == "batch":
        await asyncio.to_thread(runnable.batch, inputs)
    else:
        await runnable.abatch(inputs)
    roots = trees(receiver)
    assert len(roots) == 20
    asked = []
    for root in roots:
        graph = root.children[0] if wrapped else root
        assert drawn(graph) == SHAPE
        calls = [run for run in graph.walk() if run.kind == "llm"]
        said = {call.inputs["messages"][0][-1]["kwargs"]["content"] for call in calls}
        (question,) = said
        asked.append(question)
        assert graph.outputs["messages"][-1]["content"] == f"agg: {question}"
    assert sorted(asked) == sorted(questions)


async def test_without_tracing_nothing_is_sent(chat, monkeypatch):
    with LangSmithReceiver() as receiver:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", receiver.url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "ls-test")
        forget_client()
        await mixture(chat).ainvoke({"messages": "hi"})
        assert trees(receiver) == []
        assert receiver.messages == []
    forget_client()


async def test_a_receiver_that_does_not_answer_delays_no_run(chat, traced):
    with LangSmithReceiver(hold=True) as receiver:
        traced(receiver)
        state = await mixture(chat).ainvoke({"messages": "hi"})
        # It has its answer, and the receiver has answered nothing so far.
        assert state["messages"][-1].text == "agg: hi"
        assert receiver.messages == []
        receiver.go_on()
        (tree,) = trees(receiver)
    assert drawn(tree) == TREE


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::langsmith.utils.LangSmithMissingAPIKeyWarning")
async def test_a_receiver_that_fails_or_is_gone_fails_no_run(chat, traced):
    with LangSmithReceiver(status=500) as receiver:
        traced(receiver)
        state = await mixture(chat).ainvoke({"messages": "hi"})
        assert state["messages"][-1].text == "agg: hi"
    state = await mixture(chat).ainvoke({"messages": "again"})  # now nobody listens
    assert state["messages"][-1].text == "agg: again"


def test_a_run_that_is_created_after_it_was_completed_keeps_its_outputs():
    """Messages travel on several connections, so that they can overtake each other."""
    receiver = LangSmithReceiver()
    created = {"id": "1", "name": "moa", "inputs": {"q": 1}, "outputs": {}}
    completed = {"id": "1", "outputs": {"messages": ["x"]}, "end_time": "now"}
    for kind, run in (("patch", completed), ("post", created)):
        receiver.take("post", "/runs/batch", "application/json", json.dumps({kind: [run]}).encode())
    (root,) = receiver.roots
    assert root.outputs == {"messages": ["x"]}
    assert root.inputs == {"q": 1}
