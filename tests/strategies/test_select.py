"""What of a layer goes on: the best, the different, in which order, and to whom."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from moa_graph import Layer, MoAContext, NotEnoughProposals, create_moa
from moa_graph.strategies import (
    Agree,
    ClusterAndFilter,
    Deduplicate,
    Diverse,
    MostCentral,
    Residual,
    Shuffle,
    TopK,
    Tree,
    Unchanged,
    similarity,
)
from moa_graph.strategies.residual import residue
from tests.nodes.test_nodes import MODES, run

QUESTION = {"messages": "What is the capital of Australia?"}


def four(chat) -> list:
    return [chat(name) for name in ("a", "b", "c", "d")]


def decision(state, step: str) -> dict:
    return next(d for d in state["decisions"] if d["step"] == step)


@pytest.mark.parametrize("mode", MODES)
async def test_a_judge_chooses_with_one_call_a_layer(chat, server, mode):
    server.answers["judge"] = "4 and 2"
    graph = create_moa(
        Layer(four(chat), select=TopK(2, judge=chat("judge"))), chat("agg"), layers=3
    )
    state = await run(graph, mode, QUESTION)
    assert decision(state, "select_1")["kept"] == ["b", "d"]
    assert decision(state, "select_1")["by"] == "judge"
    assert set(decision(state, "select_1")["left_out"]) == {"a", "c"}
    runs = 2 if "batch" in mode else 1
    assert len(server.of("judge")) == 2 * runs
    assert "1. b: What" in server.of("agg")[0].system
    assert "2. d: What" in server.of("agg")[0].system
    assert "a: What" not in server.of("agg")[0].system
    judged = server.of("judge")[0]
    assert "a: What" in judged.messages[-1]["content"]
    assert "c: What" not in server.of("a")[-1].system


@pytest.mark.parametrize("says", ["I like them all", "1, 9", "1 2 3", "2 2"])
async def test_a_judge_that_talks_nonsense_is_asked_once_more_then_agreement_decides(
    chat, server, says
):
    server.answers |= {
        "judge": says,
        "a": "It is Canberra.",
        "b": "Sydney!",
        "c": "Canberra it is.",
    }
    graph = create_moa(Layer(four(chat)[:3], select=TopK(2, judge=chat("judge"))), chat("agg"))
    state = await graph.ainvoke(QUESTION)
    made = decision(state, "select_1")
    assert (made["by"], made["kept"]) == ("agreement", ["a", "c"])
    assert "no verdict in 2 attempts" in made["error"]
    assert len(server.of("judge")) == made["attempts"] == 2
    again = server.of("judge")[1].messages
    assert again[-2]["content"] == says
    assert made["usage"]["output_tokens"] > 0


async def test_a_judge_that_fails_is_no_reason_to_fail(chat, server):
    graph = create_moa(
        Layer(four(chat), select=TopK(2, judge=chat("judge?status=401"))), chat("agg")
    )
    state = await graph.ainvoke(QUESTION)
    assert "refused the API key" in decision(state, "select_1")["error"]
    assert len(server.of("judge")) == 1
    assert state["messages"][-1].text.startswith("agg:")


async def test_the_judges_tokens_are_no_answer(chat, server):
    server.answers["judge"] = "1 2"
    graph = create_moa(Layer(four(chat), select=TopK(2, judge=chat("judge"))), chat("agg"))
    text = ""
    async for message, _ in graph.astream(QUESTION, stream_mode="messages"):
        text += message.text
    assert text == "agg: What is the capital of Australia?"


async def test_diverse_keeps_what_differs(chat, server):
    server.answers |= {
        "a": "Canberra is the capital city there",
        "b": "Canberra is the capital city there indeed",
        "c": "Bananas grow in Queensland",
        "d": "Canberra is the capital city there surely",
    }
    graph = create_moa(Layer(four(chat), select=Diverse(2)), chat("agg"))
    kept = decision(await graph.ainvoke(QUESTION), "select_1")["kept"]
    assert len(kept) == 2
    assert "c" in kept


async def test_of_the_same_text_only_the_first_goes_on(chat, server):
    server.answers |= {"a": "Canberra.", "b": "canberra", "c": "Sydney.", "d": " Canberra!"}
    graph = create_moa(Layer(four(chat), select=Deduplicate()), chat("agg"))
    made = decision(await graph.ainvoke(QUESTION), "select_1")
    assert made["kept"] == ["a", "c"]
    assert made["left_out"] == {"b": "nearly the same as a", "d": "nearly the same as a"}


async def test_the_order_is_shuffled_with_a_seed_and_letters(chat, server):
    orders = set()
    for seed in range(6):
        server.reset()
        graph = create_moa(Layer(four(chat), select=Shuffle(seed, letters=True)), chat("agg"))
        kept = decision(await graph.ainvoke(QUESTION), "select_1")["kept"]
        again = decision(await graph.ainvoke(QUESTION), "select_1")["kept"]
        assert kept == again
        assert sorted(kept) == ["a", "b", "c", "d"]
        orders.add(tuple(kept))
        assert f"\nA. {kept[0]}: What" in server.of("agg")[0].system
        assert f"\nD. {kept[3]}: What" in server.of("agg")[0].system
    assert len(orders) > 1


async def test_in_a_tree_each_reader_sees_a_part_and_the_edges_say_so(chat, server):
    graph = create_moa([Layer(four(chat), select=Tree(2)), four(chat)[:2]], chat("agg"))
    edges = {(e.source, e.target) for e in graph.get_graph().edges}
    assert ("layer_1_a", "layer_2_a") in edges
    assert ("layer_1_c", "layer_2_a") not in edges
    assert ("layer_1_c", "layer_2_b") in edges
    state = await graph.ainvoke(QUESTION)
    assert "1. a: What" in server.of("a")[1].system
    assert "c: What" not in server.of("a")[1].system
    assert "1. c: What" in server.of("b")[1].system
    assert "2. b: What" in server.of("agg")[0].system
    assert len(state["proposals"]) == 6


async def test_a_reader_whose_part_has_failed_sees_all(chat, server):
    first = [chat("a?status=400"), chat("b?status=400"), chat("c"), chat("d")]
    graph = create_moa([Layer(first, select=Tree(2)), [chat("x"), chat("y")]], chat("agg"))
    await graph.ainvoke(QUESTION)
    assert "1. c: What" in server.of("x")[0].system


async def test_selections_are_applied_in_their_order(chat, server):
    server.answers |= {"a": "Canberra.", "b": "Canberra.", "c": "Canberra, says c.", "d": "Perth."}
    select = [Deduplicate(), TopK(2), Shuffle(1)]
    state = await create_moa(Layer(four(chat), select=select), chat("agg")).ainvoke(QUESTION)
    made = decision(state, "select_1")
    assert sorted(made["kept"]) == ["a", "c"]
    assert set(made["left_out"]) == {"b", "d"}
    assert made["by"] == "similarity, agreement, shuffle"


async def test_a_selection_reads_like_a_step_of_the_graph(chat):
    graph = create_moa(Layer(four(chat), select=TopK(2)), chat("agg"), layers=3).get_graph()
    names = list(graph.nodes)
    assert names.index("layer_1_d") < names.index("select_1") < names.index("layer_2_a")
    edges = {(e.source, e.target) for e in graph.edges}
    assert {
        ("layer_1_a", "select_1"),
        ("select_1", "layer_2_a"),
        ("select_2", "aggregator"),
    } <= edges


async def test_too_few_proposals_are_told_before_a_judge_is_paid(chat, server):
    bad = [chat(f"{n}?status=400") for n in "abc"]
    graph = create_moa(Layer(bad, select=TopK(1, judge=chat("judge"))), chat("agg"))
    with pytest.raises(NotEnoughProposals):
        await graph.ainvoke(QUESTION)
    assert not server.of("judge")


async def test_layers_that_a_run_leaves_out_are_not_selected_from(chat, server):
    graph = create_moa(Layer(four(chat), select=TopK(2)), chat("agg"), layers=4)
    state = await graph.ainvoke(QUESTION, context=MoAContext(layers=2))
    assert [d["step"] for d in state["decisions"]] == ["select_1"]
    assert len(server.of("a")) == 1


# --- residual references -------------------------------------------------------------------------


async def test_of_the_others_only_what_is_contested_goes_on(chat, server):
    same = (
        "The capital of Australia is Canberra. It was founded in 1913. Parliament House is there."
    )
    server.answers |= {
        "a": same,
        "b": same + " It has about 470,000 people.",
        "c": same,
    }
    graph = create_moa(Layer(four(chat)[:3], select=Residual()), chat("agg"))
    state = await graph.ainvoke(QUESTION)
    made = decision(state, "select_1")
    assert made["kept"] == ["a", "b", "c"]
    assert same not in made["texts"]["b"]
    assert "470,000" in made["texts"]["b"]
    system = server.of("agg")[0].system
    assert system.count(same) == 1
    assert "[agrees with response 1]" in system
    assert [p["content"] for p in state["proposals"]][1].startswith(same)  # the record is whole


async def test_what_changed_since_the_layer_before_goes_on_and_no_change_ends_it(chat, server):
    text = "The capital of Australia is Canberra. It was founded in 1913."
    for name in "abcd":
        server.answers[name] = text
    graph = create_moa(
        Layer(four(chat), select=Residual(), until=Unchanged()), chat("agg"), layers=5
    )
    state = await graph.ainvoke(QUESTION)
    outcomes = {d["step"]: d["outcome"] for d in state["decisions"]}
    assert (outcomes["until_1"], outcomes["until_2"]) == ("go_on", "exit")
    assert max(p["layer"] for p in state["proposals"]) == 2
    assert len(server.of("agg")) == 1


def test_a_residue_is_what_no_other_text_says():
    text = "Cats sleep a lot. They hunt mice! 猫は寝る。犬は走る。"
    others = ["They hunt mice and birds.", "猫は寝る。"]
    assert residue(text, others) == ["Cats sleep a lot.", "犬は走る。"]
    assert residue("Cats sleep a lot. They hunt mice!", ["Mice: they hunt."]) == [
        "Cats sleep a lot."
    ]
    assert residue("One.\nTwo.", []) == ["One.", "Two."]


# --- an outlier ----------------------------------------------------------------------------------

TEXTS = ["Sydney.", "Canberra.", "It is Canberra.", "Canberra, I think.", "Canberra!", "Canberra?"]


@pytest.mark.parametrize(
    ("said", "left_out", "error"),
    [
        ("1", ["p0"], None),
        ("1, 3", ["p0", "p2"], None),
        ("None of them.", [], None),
        ("1, 2, 3", [], None),  # half of them are no minority
        ("7", [], "gave no verdict"),
        ("Canberra", [], "gave no verdict"),
    ],
)
async def test_a_judge_says_who_contradicts_the_majority(chat, server, said, left_out, error):
    server.answers |= {f"p{i}": text for i, text in enumerate(TEXTS)} | {"judge": said}
    select = ClusterAndFilter(judge=chat("judge"))
    graph = create_moa(Layer([chat(f"p{i}") for i in range(6)], select=select), chat("agg"))
    made = decision(await graph.ainvoke(QUESTION), "select_1")
    assert list(made["left_out"]) == left_out
    assert ("Sydney" in server.of("agg")[0].system) is ("p0" not in left_out)
    assert (error is None and made["error"] is None) or error in made["error"]


def test_words_alone_call_nobody_an_outlier():
    with pytest.raises(ValueError, match="exactly one of embeddings and judge"):
        ClusterAndFilter()


class Meanings(Embeddings):
    """Texts with a word mean what the word means."""

    def embed_documents(self, texts):
        return [[1.0, 0.1] if "Canberra" in text else [0.1, 1.0] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


async def test_embeddings_decide_where_they_are_given(chat, server):
    texts = [*TEXTS[1:], TEXTS[0]]
    server.answers |= {f"p{i}": text for i, text in enumerate(texts)}
    graph = create_moa(
        Layer(
            [chat(f"p{i}") for i in range(6)],
            select=[ClusterAndFilter(embeddings=Meanings()), TopK(2, embeddings=Meanings())],
        ),
        chat("agg"),
    )
    made = decision(await graph.ainvoke(QUESTION), "select_1")
    assert "p5" in made["left_out"]
    graph = create_moa(
        Layer(
            [chat(f"p{i}") for i in range(6)],
            select=Diverse(2, embeddings=DeterministicFakeEmbedding(size=8)),
        ),
        chat("agg"),
    )
    assert len(decision(await graph.ainvoke(QUESTION), "select_1")["kept"]) == 2


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda m: TopK(0), ValueError, "at least 1"),
        (lambda m: TopK("2"), TypeError, "integer"),
        (lambda m: Deduplicate(1.5), ValueError, "at most 1"),
        (lambda m: Tree(True), TypeError, "integer"),
        (lambda m: create_moa(Layer([m, m], select=TopK(2)), m), ValueError, "has no effect"),
        (
            lambda m: create_moa(Layer([m, m], select=Diverse(3)), m),
            ValueError,
            "has no effect",
        ),
        (lambda m: create_moa(Layer([m] * 4, select=Tree(2)), m), ValueError, "layers=3"),
        (
            lambda m: create_moa([Layer([m] * 5, select=Tree(2)), [m] * 2], m),
            ValueError,
            "would leave out some of 5",
        ),
        (
            lambda m: create_moa(Layer([m, m], select=ClusterAndFilter(judge=m)), m),
            ValueError,
            "3 proposers",
        ),
        (
            lambda m: create_moa(Layer([m, m], select="best"), m),
            ValueError,
            "unknown strategy 'best'",
        ),
        (lambda m: create_moa(Layer([m, m], select=3), m), TypeError, "must be a strategy"),
        (lambda m: create_moa(Layer([m, m], select=Agree()), m), TypeError, "is for until"),
    ],
)
def test_what_makes_no_sense_is_refused(chat, make, kind, says):
    with pytest.raises(kind, match=says):
        make(chat("a"))


def test_what_compares_texts_says_what_to_install(monkeypatch):
    monkeypatch.setattr("moa_graph.strategies.checks.is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'moa-graph\[strategies\]'"):
        TopK(2)
    TopK(2, embeddings=Meanings())


@pytest.mark.parametrize(
    ("make", "noted"),
    [
        (MostCentral, ["MostCentral"]),
        (lambda: TopK(1), ["TopK"]),
        (Deduplicate, ["Deduplicate"]),
        (lambda: MostCentral(embeddings="openai:any"), []),
        (Shuffle, []),
    ],
)
def test_strategies_that_compare_words_are_noted(make, noted):
    make()
    with similarity.noting() as found:
        make()
    make()
    assert found == noted


def test_what_compares_words_is_imported_before_it_is_needed():
    run = (
        "import sys\nfrom moa_graph.strategies import similarity\n"
        "assert 'sklearn' not in sys.modules\nsimilarity.prepare()\nhere = set(sys.modules)\n"
        "similarity._by_words(['one two', 'two three'], 'four')\n"
        "print(len(set(sys.modules) - here), 'sklearn' in here)"
    )
    out = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0", "True"]
