from __future__ import annotations

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from moa_graph import Layer, MoAContext, Proposer, References, create_moa
from moa_graph.presets import PRESETS


def fake(text: str = "hi") -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(text)] * 99))


def nodes(graph) -> list[str]:
    return [name for name in graph.get_graph().nodes if not name.startswith("__")]


def test_paper_preset_draws_the_papers_figure():
    drawing = PRESETS["moa"].create().get_graph()
    six = [
        "WizardLM-2-8x22B",
        "Qwen1.5-110B-Chat",
        "Qwen1.5-72B-Chat",
        "Llama-3-70b-chat-hf",
        "Mixtral-8x22B-Instruct-v0.1",
        "dbrx-instruct",
    ]
    first, second = ([f"layer_{layer}_{name}" for name in six] for layer in (1, 2))
    assert list(drawing.nodes) == ["__start__", *first, *second, "aggregator", "__end__"]
    edges = {(edge.source, edge.target) for edge in drawing.edges}
    assert edges == {
        *(("__start__", node) for node in first),
        *((a, b) for a in first for b in second),
        *((node, "aggregator") for node in second),
        ("aggregator", "__end__"),
    }
    assert not any(edge.conditional for edge in drawing.edges)


def test_graph_is_a_compiled_named_state_graph_with_its_builder():
    graph = create_moa([fake()], fake(), name="advisers")
    assert graph.name == "advisers"
    assert graph.builder.compile().get_graph().nodes.keys() == graph.get_graph().nodes.keys()
    assert issubclass(graph.context_schema, MoAContext)
    assert set(graph.get_output_jsonschema()["properties"]) == {"messages", "proposals"}


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_layers_count_the_aggregators_too(layers):
    built = nodes(create_moa([fake(), fake()], fake(), layers=layers))
    assert len(built) == 2 * (layers - 1) + 1


def test_a_list_of_lists_gives_each_layer_its_own_proposers():
    a, b, c = (Proposer(fake(), name=name) for name in "abc")
    graph = create_moa([[a, b], [c]], fake())
    assert nodes(graph) == ["layer_1_a", "layer_1_b", "layer_2_c", "aggregator"]
    assert nodes(create_moa([[a, b], [c]], fake(), layers=3)) == nodes(graph)


def test_samples_are_proposers_of_their_own():
    graph = create_moa([Proposer(fake(), name="self", samples=3)], fake())
    assert nodes(graph)[:3] == ["layer_1_self_1", "layer_1_self_2", "layer_1_self_3"]


def test_default_names_come_from_the_models_and_never_collide():
    qwen = ChatOpenAI(model="Qwen/Qwen2.5-72B", api_key="k")
    ollama = ChatOpenAI(model="llama3.2:1b", api_key="k")
    given = [qwen, qwen.with_retry(), ollama, Proposer(fake(), name="Qwen2.5-72B_2")]
    assert nodes(create_moa(given, fake()))[:4] == [
        "layer_1_Qwen2.5-72B",
        "layer_1_Qwen2.5-72B_3",
        "layer_1_llama3.2-1b",
        "layer_1_Qwen2.5-72B_2",
    ]


@tool
def _tool(x: str) -> str:
    """Do nothing."""
    return x


def _stateless():
    builder = StateGraph(TypedDict("Other", {"x": str}))
    builder.add_node("node", lambda state: state)
    builder.add_edge(START, "node")
    return builder.compile()


BAD = [
    (lambda: create_moa([], fake()), ValueError, r"proposers=\[\]\) is empty"),
    (lambda: create_moa("openai:x", fake()), TypeError, "list of models"),
    (lambda: create_moa(None, fake()), TypeError, "must be a list"),
    (lambda: create_moa([[fake()], []], fake()), ValueError, r"proposers\[1\]: .*is empty"),
    (lambda: create_moa([[fake()], fake()], fake()), TypeError, "mixes"),
    (lambda: create_moa([fake()], None), TypeError, "aggregator must be a model, but is None"),
    (lambda: create_moa([fake()], Proposer(fake())), TypeError, "give the model of this Proposer"),
    (lambda: create_moa([42], fake()), TypeError, r"proposers\[0\] must be .*of type int"),
    (lambda: create_moa([ChatOpenAI], fake()), TypeError, r"ChatOpenAI\(\.\.\.\)"),
    (lambda: create_moa([lambda m: m], fake()), TypeError, "RunnableLambda"),
    (lambda: create_moa([fake()], fake(), layers=1), ValueError, "at least 2"),
    (lambda: create_moa([fake()], fake(), layers=-3), ValueError, "at least 2"),
    (lambda: create_moa([fake()], fake(), layers=2.0), TypeError, "integer"),
    (lambda: create_moa([fake()], fake(), layers=True), TypeError, "integer"),
    (lambda: create_moa([fake()], fake(), layers="3"), TypeError, "integer"),
    (lambda: create_moa([[fake()]], fake(), layers=3), ValueError, "contradicts"),
    (lambda: create_moa(Layer([fake()], min_proposals=2), fake()), ValueError, "at most 1"),
    (lambda: create_moa(Layer([fake()], min_proposals=0), fake()), ValueError, "at least 1"),
    (lambda: create_moa([fake()], fake(), references=References(prompt=" ")), ValueError, "blank"),
    (
        lambda: create_moa([Proposer(fake(), name="a"), Proposer(fake(), name="a")], fake()),
        ValueError,
        "2 proposers named 'a'",
    ),
    (
        lambda: create_moa(
            [Proposer(fake(), name="a", samples=2), Proposer(fake(), name="a_2")], fake()
        ),
        ValueError,
        "named 'a_2'",
    ),
    (lambda: create_moa(["gpt-4o"], fake()), ValueError, "has no provider"),
    (lambda: create_moa(["openai:"], fake()), ValueError, "has no model"),
    (lambda: create_moa(["openai: :"], fake()), ValueError, "has no model"),
    (lambda: create_moa(["openai::a"], fake()), ValueError, "has two colons"),
    (lambda: create_moa(["acme:x"], fake()), ValueError, "unknown provider 'acme'.*together"),
    (lambda: create_moa(["groq:x"], fake()), ValueError, "pip install langchain-groq"),
    (lambda: create_moa(["local:nothing"], fake()), ValueError, "no local model 'nothing'"),
    (lambda: create_moa([PromptTemplate.from_template("{x}")], fake()), TypeError, "is a prompt"),
    (lambda: create_moa([fake()], _tool), TypeError, "must be a model, but is a tool"),
    (lambda: create_moa([_stateless()], fake()), TypeError, "no `messages` in its state"),
    (lambda: Proposer(fake(), name="a\nb"), ValueError, "line break"),
    (lambda: Proposer(fake(), samples=0), ValueError, "at least 1"),
    (lambda: Proposer(fake(), samples=1.5), TypeError, "integer"),
    (lambda: Proposer(fake(), name=" "), ValueError, "blank"),
    (lambda: Proposer(fake(), name="a:b"), ValueError, "':'"),
    (lambda: Proposer(fake(), prompt=3), TypeError, "string"),
]


@pytest.mark.parametrize(("build", "kind", "says"), BAD, ids=[says for _, _, says in BAD])
def test_wrong_arguments_are_refused_when_the_graph_is_built(build, kind, says):
    with pytest.raises(kind, match=says):
        build()
