"""The controls that `moa eval compare` adds to a mixture, and what the literature says."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app
from moa_graph.evals.controls import Controls, literature

N = 40
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def moa(together, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What follows number {i}?", "answer": str(i + 1)} for i in range(N)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mix.toml").write_text(
        'name = "mix"\nproposers = ["together:a", "together:b"]\naggregator = "together:agg"\n'
    )
    together.answers |= {"a": says(0), "b": says(5), "agg": aggregate}

    def run(*arguments: str):
        return CliRunner().invoke(app, ["eval", "compare", *map(str, arguments)])

    return run


def number_in(call):
    return int(re.findall(r"number (\d+)", call.messages[-1]["content"])[0])


def says(wrong):
    """A model that is wrong where a number modulo ten is below `wrong`."""

    def answer(call):
        number = number_in(call)
        return f"{call.label} says {number + (2 if number % 10 < wrong else 1)}."

    return answer


def aggregate(call):
    """A judge that takes the second response, and an aggregator that is always wrong."""
    return "2" if "number of the best response" in call.system else "The synthesis says 0."


ASKED = ("-d", "asked.jsonl", "--scorer", "number", "-o", "o")


def test_one_mixture_is_compared_with_its_controls(moa, together):
    result = moa("mix.toml", *ASKED, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    quality = {name: row["quality"]["value"] for name, row in found["targets"].items()}
    assert quality["mix"] == 0
    assert quality["mix, chosen"] == 0.5
    assert quality["together:a"] == 1  # the best proposer, from the mixture's own proposals
    (matched,) = set(quality) - {"mix", "mix, chosen", "together:a"}
    assert re.fullmatch(r"together:a, \d+ answers", matched)
    verdicts = [row["verdict"] for row in found["literature"]]
    assert verdicts == ["disagrees", "disagrees", "agrees", "agrees"]
    calls = Counter(call.label for call in together.calls)
    assert calls["b"] == N  # the choice is made among the proposals that were paid for
    assert calls["agg"] == 2 * N
    tokens = {name: sum(row["tokens"].values()) for name, row in found["targets"].items()}
    assert tokens[matched] == pytest.approx(tokens["mix"], rel=0.5)

    table = moa("mix.toml", *ASKED).stdout
    assert "| what publications say" in table
    assert "2603.20324" in table
    assert len(together.calls) == sum(calls.values())


def test_controls_can_be_left_out(moa, together):
    result = moa("mix.toml", "together:a", *ASKED, "--no-controls", "--json")
    assert list(json.loads(result.stdout)["targets"]) == ["mix", "together:a"]
    assert json.loads(result.stdout)["literature"] == []
    assert moa("mix.toml", *ASKED, "--no-controls").exit_code == 2


def test_a_model_that_is_given_is_not_asked_twice(moa, together):
    result = moa("mix.toml", "together:a", *ASKED, "--json")
    found = json.loads(result.stdout)
    assert list(found["targets"])[:3] == ["mix", "together:a", "mix, chosen"]
    assert len(found["targets"]) == 4


def test_a_judge_decides_where_there_is_no_scorer(moa, together):
    together.answers["judge"] = "[[A]]"
    result = moa("mix.toml", "-d", "asked.jsonl", "-o", "o", "--judge", "together:judge", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "together:agg" in found["targets"]  # proposals are not judged: the aggregator's model
    verdicts = {row["verdict"] for row in found["literature"]}
    assert {v for v in verdicts if "comparable" not in v} == {"not statistically significant"}


def test_a_control_that_has_the_name_of_a_target_is_refused(moa, together, tmp_path):
    (tmp_path / "other.toml").write_text(
        'name = "mix, chosen"\nproposers = ["together:b"]\naggregator = "vote"\n'
    )
    result = moa("mix.toml", "other.toml", *ASKED)
    assert result.exit_code == 2
    assert "Two configurations are named 'mix, chosen'" in result.stderr
    assert not together.calls


def test_a_model_with_the_mixtures_settings_is_not_the_one_without(moa, tmp_path):
    text = (tmp_path / "mix.toml").read_text()
    (tmp_path / "mix.toml").write_text(text + "temperature = 0.3\n")
    for targets in (("mix.toml",), ("mix.toml", "together:a")):
        result = moa(*targets, *ASKED, "--json")
        assert result.exit_code == 0, result.stderr
        assert "together:a alone" in json.loads(result.stdout)["targets"]


def test_without_a_synthesis_there_is_no_control(moa):
    result = moa("together:a", "together:b", *ASKED, "--json")
    assert list(json.loads(result.stdout)["targets"]) == ["together:a", "together:b"]


def test_a_mixture_whose_proposals_are_rewritten_has_no_choice(moa, together, tmp_path):
    text = (tmp_path / "mix.toml").read_text().replace('["together:a", "together:b"]', "[]")
    text = text.replace("proposers = []\n", "")
    (tmp_path / "mix.toml").write_text(
        text + '[[proposers]]\nproposers = ["together:a", "together:b"]\nselect = ["residual"]\n'
    )
    result = moa("mix.toml", *ASKED)
    assert result.exit_code == 2
    assert "--no-controls" in result.stderr
    assert not together.calls


def pair(target, other, low, high):
    return {
        "target": target,
        "other": other,
        "value": (low + high) / 2,
        "low": low,
        "high": high,
        "n": 9,
    }


def test_the_literature_is_told_with_the_difference_in_its_own_direction():
    tokens = {"input": 100, "output": 100}
    found = {
        "targets": {name: {"tokens": tokens} for name in ("mix", "chosen", "one", "many")},
        "pairs": [
            pair("chosen", "mix", 0.1, 0.3),
            pair("one", "mix", -0.3, -0.1),
            pair("many", "mix", -0.1, 0.1),
        ],
    }
    rows = literature(found, Controls("mix", "chosen", "one", "many"))
    assert [row["verdict"] for row in rows] == [
        "agrees",
        "disagrees",
        "agrees",
        "not statistically significant",
    ]
    assert rows[0]["difference"]["low"] == pytest.approx(0.1)
    found["targets"]["many"] = {"tokens": {"input": 40, "output": 42}}
    rows = literature(found, Controls("mix", "chosen", "one", "many"))
    assert rows[3]["verdict"] == "not comparable: 0.41 times the tokens"


def test_what_was_chosen_first_is_not_chosen_anew(moa, together, tmp_path):
    """Neither the model nor its number of answers depends on answers that come later."""
    first = json.loads(moa("mix.toml", *ASKED, "--json").stdout)
    path = tmp_path / "o" / "controls.json"
    (kept,) = json.loads(path.read_text())
    assert kept["model"] == "together:a"
    path.write_text(json.dumps([{**kept, "samples": kept["samples"] + 1}]))
    calls = len(together.of("a"))
    second = json.loads(moa("mix.toml", *ASKED, "--json").stdout)
    assert f"together:a, {kept['samples'] + 1} answers" in second["targets"]
    assert len(together.of("a")) - calls == N * (kept["samples"] + 1)
    path.write_text(json.dumps([{**kept, "mixture": "another", "samples": 19}]))
    third = json.loads(moa("mix.toml", *ASKED, "--json").stdout)
    assert list(third["targets"]) == list(first["targets"])
