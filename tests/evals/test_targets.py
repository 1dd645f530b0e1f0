from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.cache.memory import InMemoryCache

from moa_graph import create_moa
from moa_graph.calling import sync
from moa_graph.evals.files import EvalError
from moa_graph.evals.recorded import RecordedProposals
from moa_graph.evals.targets import AnswerFailed, aggregator_alone, load_target, of_graph, of_model
from moa_graph.models import transport
from moa_graph.strategies import Vote

ASKED = [HumanMessage("What is a cat?")]


def mixture(tmp_path: Path, **more) -> Path:
    path = tmp_path / "mix.toml"
    lines = {"proposers": ["together:a", "together:b"], "aggregator": "together:agg", **more}
    path.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in lines.items()))
    return path


async def test_single_model_tells_its_answer_and_what_it_took(together):
    prices = {"alpha": (1_000_000.0, 2_000_000.0)}
    row = await load_target(
        "together:alpha?latency=0.05", prices={"alpha?latency=0.05": prices["alpha"]}
    ).ask(ASKED)
    used = row["usage"]["alpha?latency=0.05"]
    assert row["answer"] == "alpha: What is a cat?"
    assert row["calls"] == 1
    assert row["cost"] == used["input"] + 2 * used["output"]
    assert row["latency"] >= row["first_token"] >= 0.05


@pytest.mark.parametrize("spec", ["together:a", "mixture"])
async def test_reasoning_is_no_part_of_what_is_evaluated(together, tmp_path, spec):
    together.answer_all = "<think>5? no.</think>4"
    target = load_target(mixture(tmp_path) if spec == "mixture" else spec)
    assert (await target.ask(ASKED))["answer"] == "4"
    together.answer_all = "<think>5? no."
    with pytest.raises(AnswerFailed, match=r"only reasoning|usable"):
        await target.ask(ASKED)


async def test_mixture_counts_every_call_once(together, tmp_path):
    prices = {"a": (1e6, 1e6), "b": (1e6, 1e6), "agg": (1e6, 1e6)}
    row = await load_target(mixture(tmp_path), prices=prices).ask(ASKED)
    assert row["calls"] == 3
    assert set(row["usage"]) == {"a", "b", "agg"}
    assert row["cost"] == sum(u["input"] + u["output"] for u in row["usage"].values())
    assert [p["proposer"] for p in row["proposals"]] == ["a", "b"]


async def test_cost_is_unknown_where_a_price_is(together, tmp_path):
    row = await load_target(mixture(tmp_path), prices={"a": (1, 1), "b": (1, 1)}).ask(ASKED)
    assert row["cost"] is None
    assert row["usage"]["agg"]["output"]


async def test_proposals_from_the_cache_count_as_if_they_were_asked(together, tmp_path):
    prices = dict.fromkeys(("a", "b", "agg"), (1e6, 1e6))
    target = load_target(mixture(tmp_path), prices=prices, cache=lambda name: InMemoryCache())
    first, second = await target.ask(ASKED), await target.ask(ASKED)
    assert len(together.calls) == 4
    assert (second["calls"], second["cost"]) == (first["calls"], first["cost"])


async def test_chunkwise_configuration_is_evaluated_without_a_cache(together, tmp_path):
    together.answer_all = "Cats are small animals."
    path = mixture(tmp_path, proposers=["together:a?writes"], aggregator="together:agg?writes")
    path.write_text(path.read_text() + '\nprogressive = { strategy = "chunkwise" }\n')
    row = await load_target(path, cache=lambda name: InMemoryCache()).ask(ASKED)
    assert row["answer"] == "Cats are small animals."


async def test_failure_carries_what_was_spent(together, tmp_path):
    target = load_target(mixture(tmp_path, aggregator="together:agg?status=400"))
    with pytest.raises(AnswerFailed, match="400") as error:
        await target.ask(ASKED)
    assert set(error.value.record["usage"]) == {"a", "b"}
    assert error.value.record["calls"] == 3


async def test_vote_with_nothing_to_count_answers_nothing(chat):
    graph = create_moa([chat("a"), chat("b")], Vote(parse=lambda text: None))
    row = await of_graph("vote", graph, "vote").ask(ASKED)
    assert row["answer"] == ""
    assert "no proposal has an answer" in row["no_answer"]


async def test_empty_answer_is_a_failure(together):
    with pytest.raises(AnswerFailed, match="empty"):
        await load_target("together:alpha?empty").ask(ASKED)


def test_same_configuration_has_the_same_digest(together, tmp_path):
    one = load_target(mixture(tmp_path)).digest
    assert load_target(mixture(tmp_path)).digest == one
    assert load_target(mixture(tmp_path, temperature=0.5)).digest != one
    assert load_target("together:a").digest != load_target("together:b").digest


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nope", "There is no preset 'nope'.*single model is written"),
        ("moa-lit", "Did you mean 'moa-lite'"),
        ("nowhere.toml", "no configuration file nowhere.toml"),
        ("nobody:x", "unknown provider 'nobody'"),
    ],
)
def test_what_is_no_target_is_told(spec, said):
    with pytest.raises(EvalError, match=said):
        load_target(spec)


def test_missing_key_is_told_before_anything_is_asked():
    target = load_target("together:alpha")
    with pytest.raises(Exception, match="set TOGETHER_API_KEY"):
        target.check()


def test_aggregator_alone_has_the_mixtures_settings(together, tmp_path):
    target = aggregator_alone(mixture(tmp_path, temperature=0.25, max_tokens=99))
    assert target.name == "together:agg alone"
    assert (target.answering.temperature, target.answering.max_tokens) == (0.25, 99)
    (tmp_path / "vote.toml").write_text(
        'proposers = ["together:a"]\n[aggregator]\nstrategy = "vote"\n'
    )
    with pytest.raises(EvalError, match="has no aggregator"):
        aggregator_alone(tmp_path / "vote.toml")


def recorded(tmp_path: Path, name: str, answers: dict[str, str]) -> RecordedProposals:
    rows = [{"instruction": q, "output": a, "generator": name} for q, a in answers.items()]
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    path.write_text(json.dumps(rows))
    return RecordedProposals.read(path)


async def test_recorded_proposals_take_the_place_of_proposers(together, tmp_path):
    proposals = [
        recorded(tmp_path, name, {"What is a cat?": f"{name} says so"}) for name in ("x", "y/1")
    ]
    target = load_target(mixture(tmp_path), recorded=proposals)
    row = await target.ask(ASKED)
    assert together.labels() == ["agg"]
    assert "1. x says so\n2. y/1 says so" in together.calls[0].system
    assert row["calls"] == 1
    assert set(row["usage"]) == {"agg"}
    one_model = load_target("together:agg", recorded=proposals)
    assert (await one_model.ask(ASKED))["answer"] == "agg: What is a cat?"


def test_recorded_answers_by_id_and_turn(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [
        {"question_id": 81, "model_id": "vicuna", "choices": [{"index": 0, "turns": ["a", "b"]}]}
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    proposals = RecordedProposals.read(path, {"81": ["Write.", "Again."]})
    asked = [HumanMessage("Write."), AIMessage("other"), HumanMessage("Again.")]
    assert proposals.name == "vicuna"
    assert proposals.invoke(asked[:1]).content == "a"
    assert proposals.invoke(asked).content == "b"
    assert proposals.missing([("Write.",), ("Write.", "Again."), ("What?",)]) == [("What?",)]
    with pytest.raises(EvalError, match="no recorded answer"):
        proposals.invoke([HumanMessage("What?")])


def test_a_recorded_answer_that_is_null_is_missing(tmp_path):
    proposals = recorded(tmp_path, "x", {"What?": None, "Why?": "So."})
    assert proposals.missing([("What?",), ("Why?",)]) == [("What?",)]


async def test_prices_may_name_the_provider_and_be_told_later(together):
    row = await load_target("together:a").ask(ASKED)
    assert row["cost"] is None
    known = load_target("together:a", prices={"together:a": (1e6, 1e6)})
    assert known.cost(row) == sum(row["usage"]["a"].values())
    assert known.cost({"error": "late"}) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"x": 1}, "is not a file of answers"),
        ({"question_id": 9, "text": "a"}, "answers the question '9', which is not asked here"),
        ({"question_id": 81}, "has neither `text` nor `answer`"),
        ({"instruction": "x", "output": {"text": "a"}}, "must be a string, not dict"),
    ],
)
def test_what_is_no_file_of_answers_is_told(tmp_path, row, said):
    (tmp_path / "r.jsonl").write_text(json.dumps(row))
    with pytest.raises(EvalError, match=said):
        RecordedProposals.read(tmp_path / "r.jsonl", {"81": ["x"]})


@pytest.mark.parametrize("times", range(2))
def test_models_alone_are_asked_in_one_event_loop_after_the_other(together, times):
    target = load_target("together:alpha")
    kept = asyncio.new_event_loop()
    first = kept.run_until_complete(target.ask(ASKED))  # its connection stays open
    again = sync.run(target.ask(ASKED))
    assert first["answer"] == again["answer"] == "alpha: What is a cat?"
    kept.close()


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_single_model_uses_the_connections_that_were_chosen(together, chosen):
    params = {}
    if chosen:
        params = {"http_async_client": httpx.AsyncClient(headers={"x-chosen": "yes"})}
    target = of_model("together:a", **params)
    assert (await target.ask(ASKED))["answer"] == "a: What is a cat?"
    http = target._here().root_async_client._client
    assert (http.headers.get("x-chosen") == "yes") is chosen
    assert any(http is one.client for one in transport._all) is not chosen
