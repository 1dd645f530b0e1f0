"""Files say all that Python can: every strategy, every field, there and back."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner
from typing_extensions import TypedDict

from moa_graph import CallPolicy, Layer, Proposer, References, RunLimits, create_moa
from moa_graph.cli.app import app
from moa_graph.presets import PRESETS, load_preset
from moa_graph.presets.configuration import Configuration
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
    names,
    registry,
)
from moa_graph.strategies.experimental import Chunkwise
from moa_graph.strategies.numerals import last_number

M, E = "openai:m", "openai:text-embedding-3-small"
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}}
SELECT = [
    TopK(2), TopK(1, judge=M), TopK(1, embeddings=E), Diverse(2), Diverse(1, embeddings=E),
    Deduplicate(), Deduplicate(0.5, embeddings=E), Shuffle(), Shuffle(7, letters=True), Tree(2),
    ClusterAndFilter(embeddings=E), ClusterAndFilter(judge=M), Residual(), Residual(0.5),
]  # fmt: skip
UNTIL = [
    Agree(), Agree(0.5, parse=last_number, then="answer"), Similar(), Similar(0.5, embeddings=E),
    Similar(then="answer"), JudgedAgreement(M), JudgedAgreement(M, then="answer"), Unchanged(),
    Unchanged(0.1, then="answer"),
]  # fmt: skip
ANSWER = [
    Rank(M), Rank(M, embeddings=E), Vote(), Vote(parse=last_number, tie="shortest"), Vote(tie=M),
    Vote(schema=SCHEMA), Vote(weights={"a": 2.0}), MostCentral(), MostCentral(embeddings=E),
    PeerReview(), PeerReview(M), PeerReview(M, top=2), PeerReview(embeddings="openai:e"),
    Analyse(M), Analyse(M, analyst="openai:n"), SelfMoASeq(M), SelfMoASeq(M, window=3),
    DropoutAndVote(M), DropoutAndVote(M, subsets=3, drop=1, seed=2, parse=last_number),
    DropoutAndCluster(M), DropoutAndCluster(M, subsets=2, drop=2, seed=1, embeddings=E),
]  # fmt: skip
ROUTE = [
    Route(M, judge="openai:j"), Route(M, samples=3), Route(M, samples=2, share=0.5, parse=last_number)
]  # fmt: skip
PROGRESSIVE = [Staircase(), Staircase(8, 3), Chunkwise(), Chunkwise(32, 1.5)]
BY_PLACE: dict[str, list[Any]] = {
    "select": SELECT,
    "until": UNTIL,
    "aggregator": ANSWER,
    "route": ROUTE,
    "progressive": PROGRESSIVE,
}
ALL = [(place, one) for place, several in BY_PLACE.items() for one in several]
THREE = [Proposer("openai:a", name="a"), "openai:b", "openai:c"]


def graph_with(place: str, strategy: Any) -> Any:
    if place == "select":
        return create_moa(Layer(THREE, select=strategy), M, layers=3)
    if place == "until":
        return create_moa(Layer(THREE, until=strategy), M, layers=4)
    if place == "aggregator":
        return create_moa(THREE, strategy)
    return create_moa(THREE, M, **{place: strategy})


def there_and_back(moa: Any, path: Any) -> Any:
    configuration = Configuration.of(moa)
    configuration.save(path)
    loaded = load_preset(path)
    assert loaded.data() == configuration.data()
    again = loaded.create()
    assert Configuration.of(again).data() == configuration.data()
    assert again.get_graph().draw_mermaid() == moa.get_graph().draw_mermaid()
    assert again.plan.policies == moa.plan.policies
    assert again.plan.references == moa.plan.references
    assert again.plan.limits == moa.plan.limits
    assert again.plan.calls == moa.plan.calls
    return again


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


@pytest.mark.parametrize("suffix", ["toml", pytest.param("yaml", marks=pytest.mark.full)])
@pytest.mark.parametrize(("place", "strategy"), ALL, ids=[repr(one) for _, one in ALL])
def test_every_strategy_comes_back_from_a_file(tmp_path, place, strategy, suffix):
    again = there_and_back(graph_with(place, strategy), tmp_path / f"mine.{suffix}")
    _, given_again = again.plan.recipe
    if place in ("select", "until"):
        layer = given_again["proposers"]
        written = layer["select"][0] if place == "select" else layer["until"]
    else:
        written = given_again[place]
    built = registry.as_strategy(place, written, place)  # type: ignore[arg-type]
    assert registry.plain(place, built, place) == registry.plain(place, strategy, place)  # type: ignore[arg-type]


def test_every_strategy_and_every_argument_stands_in_these_tables():
    for place, named in names.STRATEGIES.items():
        if place == "parse":
            continue
        for name, made in named.items():
            arguments = set(inspect.signature(made).parameters)
            used: set[str] = set()
            for one in BY_PLACE[place]:
                if type(one) is made:
                    data = registry.plain(place, one, place)
                    used |= set(data) if isinstance(data, dict) else {"strategy"}
            assert used - {"strategy"} == arguments, name


@pytest.mark.parametrize(("place", "strategy"), ALL[::6], ids=[repr(one) for _, one in ALL[::6]])
def test_a_file_is_drawn(tmp_path, place, strategy):
    path = tmp_path / "mine.toml"
    Configuration.of(graph_with(place, strategy)).save(path)
    drawn = CliRunner().invoke(app, ["draw", "--config", str(path)])
    assert drawn.exit_code == 0, drawn.output
    assert "layer_1_a" in drawn.output


def test_two_layers_that_differ_in_everything_come_back(tmp_path):
    first = Layer(
        ["openai:a", Proposer("openai:b", name="critic", prompt="Look.", samples=2, timeout=9,
                              cache_key="v1", temperature=0.5, max_tokens=99,
                              params={"top_p": 0.5})],
        min_proposals=2, quorum=2, grace=0.5, timeout=30, hedge="2x",
        select=[Deduplicate(), TopK(2, judge=M)], until=Agree(then="answer"),
        reserve=["openai:r", {"model": "openai:s", "temperature": 0.1}],
    )  # fmt: skip
    second = Layer(
        ["openai:d", "openai:e"],
        hedge=5,
        select="shuffle",
        references=References("Second:", place="human", fenced=True, window=9000, reasoning=True),
    )
    moa = create_moa(
        [first, second, ["openai:f"]],
        {"model": M, "temperature": 0.2},
        references=References("All:"),
        route=Route("openai:cheap", samples=2),
        limits=RunLimits(60, tokens=9000, usd=1.0, prices=dict.fromkeys(PRICED, (1.0, 2.0))),
        calls=CallPolicy(2, concurrent={"openai": 3}),
        stream_proposals=True,
        name="whole",
    )
    for suffix in ("toml", "yaml", "yml"):
        again = there_and_back(moa, tmp_path / f"whole.{suffix}")
        assert again.name == "whole"


def test_a_file_with_layers_strategies_and_references_is_built(tmp_path):
    (tmp_path / "mine.toml").write_text("""
layers = 3
aggregator = { strategy = "rank", judge = "openai:gpt-5.2" }
references = { fenced = true }

[[proposers]]
proposers = ["openai:a", { model = "openai:b", samples = 2 }, "openai:c"]
quorum = 3
select = [{ strategy = "top_k", k = 2 }]

[[proposers]]
proposers = ["openai:a", "openai:b"]
until = { strategy = "agree" }
""")
    moa = there_and_back(load_preset(tmp_path / "mine.toml").create(), tmp_path / "again.yaml")
    assert [policy.width for policy in moa.plan.policies] == [4, 2]
    assert moa.plan.policies[0].quorum.proposals == 3
    assert moa.plan.references.fenced
    assert "select_1" in moa.nodes


PRICED = ["a", "b", "d", "e", "f", "m", "r", "s", "cheap"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back(tmp_path, name):
    preset = PRESETS[name]
    preset.save(tmp_path / "p.toml")
    assert load_preset(tmp_path / "p.toml").data() == preset.data()


def test_what_has_no_name_cannot_be_written_and_says_which(chat):
    unnamed = create_moa(Layer(["openai:a", "openai:b"], select=lambda references, run: []), M)
    with pytest.raises(ValueError, match=r"select cannot be written.*register_strategy"):
        Configuration.of(unnamed)
    with pytest.raises(ValueError, match=r"proposers cannot be written.*ChatOpenAI"):
        Configuration.of(create_moa([chat("a")], M))
    with pytest.raises(ValueError, match=r"aggregator cannot be written.*ChatOpenAI"):
        Configuration.of(create_moa(["openai:a"], chat("a")))
    with pytest.raises(ValueError, match=r"class Pair.*JSON schema"):
        Configuration.of(create_moa(["openai:a"], Vote(schema=Pair)))

    with pytest.raises(ValueError, match=r"proposers\[0\]\.params\.api_key.*SecretStr"):
        Configuration.of(create_moa([Proposer(M, params={"api_key": SecretStr("x")})], M))


@pytest.mark.parametrize(
    ("graph", "place"),
    [
        (
            lambda: create_moa(
                [Proposer(M, params={"timeout": None, "extra_body": [{"a": None}]})], M
            ),
            "proposers[0].params.timeout",
        ),
        (
            lambda: create_moa([M], Vote(schema={"properties": {"a": {"default": None}}})),
            "aggregator.schema.properties.a.default",
        ),
    ],
)
def test_a_null_of_a_models_parameters_or_of_a_schema_comes_back(tmp_path, graph, place):
    configuration = Configuration.of(graph())
    configuration.save(tmp_path / "mine.yaml")
    loaded = load_preset(tmp_path / "mine.yaml")
    assert loaded.data() == {**configuration.data(), "name": loaded.name}
    assert "None" in str(loaded.data())
    with pytest.raises(ValueError, match=re.escape(f"{place} is None, which TOML does not have")):
        configuration.save(tmp_path / "mine.toml")
    with pytest.raises(ValueError, match=r"must end in \.toml, \.yaml or \.yml"):
        configuration.save(tmp_path / "mine.txt")
    assert not (tmp_path / "mine.txt").exists()


class Pair(TypedDict):
    x: int


# --- any mixture ---------------------------------------------------------------------------------

NAMES = st.sampled_from(["openai:a", "openai:b", "openai:c/d"])
SECONDS = st.floats(0.5, 99, allow_nan=False)
PROPOSERS = NAMES | st.builds(
    Proposer,
    NAMES,
    prompt=st.none() | st.text("abc é\n\"'", min_size=1),
    samples=st.integers(1, 3),
    timeout=st.none() | SECONDS,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 999),
)
SHOWN = st.builds(
    References,
    st.none() | st.text("abc:\n", min_size=1).filter(str.strip),
    place=st.none() | st.sampled_from(["system", "human"]),
    fenced=st.booleans(),
    window=st.none() | st.integers(1, 9999),
    reasoning=st.booleans(),
)


@st.composite
def layers(draw: Any) -> Layer:
    proposers = draw(st.lists(PROPOSERS, min_size=1, max_size=3))
    width = Layer(proposers).width
    least = draw(st.integers(1, width))
    quorum = draw(st.none() | st.integers(least, width))
    return Layer(
        proposers,
        min_proposals=least,
        quorum=quorum,
        grace=draw(SECONDS) if quorum else 0,
        timeout=draw(st.none() | SECONDS),
        hedge=draw(st.none() | SECONDS | st.sampled_from(["2x", "1.5x"])),
        select=draw(st.sampled_from([(), [Shuffle()], [Deduplicate(), Shuffle(3)]])),
        until=draw(st.sampled_from([None, Agree(then="answer"), Similar(then="answer")])),
        reserve=draw(st.lists(PROPOSERS, max_size=2)),
        references=draw(st.none() | SHOWN),
    )


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    several=st.booleans(),
    shown=st.none() | SHOWN,
    timeout=st.none() | SECONDS,
    retries=st.none() | st.integers(0, 9),
    suffix=st.sampled_from(["toml", "yaml"]),
)
def test_any_mixture_comes_back_the_same(
    tmp_path_factory, data, several, shown, timeout, retries, suffix
):
    proposers = (
        data.draw(st.lists(layers(), min_size=1, max_size=3)) if several else data.draw(layers())
    )
    answers = [Analyse(M)] if shown and shown.fenced else [Rank(M), MostCentral(), Analyse(M)]
    moa = create_moa(
        proposers,
        data.draw(NAMES | st.sampled_from(answers)),
        references=shown,
        limits=None if timeout is None else RunLimits(timeout),
        calls=None if retries is None else CallPolicy(retries),
    )
    there_and_back(moa, tmp_path_factory.mktemp("files") / f"any.{suffix}")
