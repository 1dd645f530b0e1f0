from __future__ import annotations

import json

import pytest
from langchain_core.tracers.langchain import wait_for_all_tracers

from moa_graph.evals.compare import compare
from moa_graph.evals.datasets import load_dataset
from moa_graph.evals.experiment import Experiment, is_configured
from moa_graph.evals.targets import load_target
from tests.evals.langsmith_datasets import LangSmithDatasets
from tests.langsmith_receiver import forget_client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def langsmith(monkeypatch):
    with LangSmithDatasets() as service:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", service.url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "ls-0123456789")
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        forget_client()
        yield service
        wait_for_all_tracers()
    forget_client()


def numbers(found):
    kept = ("quality", "accuracy", "calls", "tokens", "characters")
    return {name: {k: row.get(k) for k in kept} for name, row in found["targets"].items()}


def targets():
    return [load_target("together:seven"), load_target("together:ok")]


@pytest.mark.full
def test_experiment_has_the_answers_and_scores_and_the_same_numbers(together, langsmith, tmp_path):
    together.answers["seven"] = "It is 7."
    dataset = load_dataset("reasoning-gym:chain_sum?max_digits=1", size=6)
    assert is_configured()
    through = compare(
        targets(), dataset, tmp_path / "a", experiment=Experiment(), quiet=True, at_once=3
    )
    calls = len(together.calls)
    assert calls == 12
    local = compare(targets(), dataset, tmp_path / "b", quiet=True)
    assert numbers(through) == numbers(local)

    (made,) = langsmith.datasets.values()
    assert made["name"].startswith("moa-eval chain_sum-6-42")
    assert len(langsmith.examples) == 6
    names = {session.get("name") or "" for session in langsmith.sessions.values()}
    assert any(name.startswith("together:seven") for name in names)
    roots = [r for r in langsmith.runs.values() if r.get("reference_example_id")]
    assert len(roots) == 12
    assert {r["outputs"]["answer"] for r in roots} >= {"It is 7."}
    assert any(r.get("run_type") == "llm" for r in langsmith.runs.values())
    scores = [f for f in langsmith.feedback if f["key"] == "accuracy"]
    assert len(scores) == 12
    right = sum(f["score"] for f in scores if f["run_id"] in {r["id"] for r in roots})
    assert right == sum(6 * row["quality"]["value"] for row in through["targets"].values())


@pytest.mark.full
def test_second_run_pays_for_nothing_and_adds_no_dataset(together, langsmith, tmp_path):
    dataset = load_dataset("reasoning-gym:chain_sum", size=3)
    for _ in range(2):
        compare(targets(), dataset, tmp_path, experiment=Experiment(), quiet=True)
    assert len(together.calls) == 6
    assert len(langsmith.datasets) == 1
    assert len(langsmith.examples) == 3


def test_dataset_of_langsmith_is_compared_on(together, langsmith, tmp_path):
    key = langsmith.add_dataset("capitals")
    for city in ("Paris", "Rome", "Berlin"):
        langsmith.add_example(
            key, {"inputs": {"question": f"Which country has {city}?"}, "outputs": {"answer": city}}
        )
    dataset = load_dataset("langsmith:capitals", scorer="contains")
    found = compare(targets(), dataset, tmp_path, experiment=Experiment(), quiet=True)
    assert found["n"] == 3
    assert found["targets"]["together:ok"]["quality"]["value"] == 1.0
    assert len(langsmith.datasets) == 1
    assert json.loads((tmp_path / "report.json").read_text())["dataset"] == "capitals"
