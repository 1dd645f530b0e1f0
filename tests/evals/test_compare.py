from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from langchain_core.messages import HumanMessage

from moa_graph.evals import pairwise
from moa_graph.evals.compare import compare
from moa_graph.evals.comparison_report import report
from moa_graph.evals.datasets import load_dataset
from moa_graph.evals.files import EvalError, EvalFailed
from moa_graph.evals.length_control import length_controlled
from moa_graph.evals.pairwise import Pair
from moa_graph.evals.targets import load_target

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima"}


@pytest.fixture
def capitals(tmp_path):
    path = tmp_path / "capitals.jsonl"
    rows = [{"question": f"Capital of {c}?", "answer": a} for c, a in CAPITALS.items()]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def targets(*names):
    return [load_target(f"together:{name}") for name in names]


def test_verifiable_tasks_have_a_scorer_and_no_judge(together, capitals, tmp_path):
    together.answers["lima"] = "It is Lima."
    together.answers["knows"] = "Paris, Rome, Madrid or Lima"
    found = compare(
        targets("lima", "knows"),
        load_dataset(str(capitals), scorer="contains"),
        tmp_path / "o",
        quiet=True,
    )
    assert found["measure"] == "accuracy"
    assert found["targets"]["together:lima"]["quality"]["value"] == 0.25
    assert found["targets"]["together:knows"]["quality"]["value"] == 1
    assert found["pairs"][0]["value"] == 0.75
    assert len(together.calls) == 8
    for name in ("report.md", "report.json", "quality.png", "pareto.png"):
        assert (tmp_path / "o" / name).stat().st_size > 100
    assert json.loads((tmp_path / "o" / "report.json").read_text()) == found


@pytest.mark.full
def test_judge_that_prefers_the_first_answer_gives_half_and_is_told(together, capitals, tmp_path):
    together.answers["first"] = "Both are fine. [[A]]"
    found = compare(
        targets("a", "b", "c"),
        load_dataset(str(capitals)),
        tmp_path / "o",
        judging=load_target("together:first"),
        quiet=True,
    )
    for row in found["targets"].values():
        assert row["quality"]["value"] == 0.5
    bias = found["judge"]["position_bias"]
    assert bias["biased"]
    assert bias["first"]["value"] == 1
    assert "The judge has a position bias: it preferred the first answer in 100.0" in report(found)
    assert "No difference in win rate is shown" in report(found)
    assert found["targets"]["together:b"]["by_order"] == 4
    orders = [c.messages[1]["content"].index("a: Capital") for c in together.of("first")[:2]]
    assert orders[0] != orders[1]


def test_other_settings_are_told_before_anything_is_asked(together, capitals, tmp_path):
    asked = load_dataset(str(capitals), scorer="contains")
    (tmp_path / "e.toml").write_text('proposers=["together:a"]\naggregator="together:b"')
    first = [*targets("x"), load_target(tmp_path / "e.toml")]
    compare(first, asked, tmp_path / "o", quiet=True)
    calls = len(together.calls)
    (tmp_path / "e.toml").write_text('proposers=["together:a"]\naggregator="together:c"')
    second = [*targets("new"), load_target(tmp_path / "e.toml")]
    with pytest.raises(EvalError, match="other settings"):
        compare(second, asked, tmp_path / "o", quiet=True)
    assert len(together.calls) == calls


def test_names_that_share_a_file_are_refused(together, capitals, tmp_path):
    x, y = targets("x", "y")
    alike = [replace(x, name="a b"), replace(y, name="a?b")]
    with pytest.raises(EvalError, match=r"'a b' and 'a\?b' lead to the same file name"):
        compare(alike, load_dataset(str(capitals), scorer="contains"), tmp_path, quiet=True)
    assert not together.calls


def test_prices_that_come_later_count(together, capitals, tmp_path):
    asked = load_dataset(str(capitals), scorer="contains")
    found = compare(targets("x", "y"), asked, tmp_path / "o", quiet=True)
    assert found["targets"]["together:x"]["cost"] is None
    prices = dict.fromkeys(("x", "y"), (1e6, 1e6))
    known = [load_target(f"together:{name}", prices=prices) for name in ("x", "y")]
    found = compare(known, asked, tmp_path / "o", quiet=True)
    assert found["targets"]["together:x"]["cost"] > 1
    assert len(together.calls) == 8


def test_equal_answers_are_not_judged_and_that_is_said(together, capitals, tmp_path):
    together.answers |= {"x": "same", "y": "same"}
    judge = load_target("together:judge")
    found = compare(
        targets("x", "y"), load_dataset(str(capitals)), tmp_path, judging=judge, quiet=True
    )
    assert not together.of("judge")
    assert "The judge was not asked: the answers are the same." in found["says"]


def test_tasks_that_cannot_be_generated_are_told():
    with pytest.raises(EvalError, match=r"does not make chain_sum with 'min_digits=1\.5'"):
        load_dataset("reasoning-gym:chain_sum?min_digits=1.5", size=2)


def test_judge_with_an_opinion_is_followed(together, capitals, tmp_path):
    class Opinion(dict):
        def get(self, label, default=None):
            if label != "judge":
                return super().get(label, default)
            text = together.of("judge")[-1].messages[1]["content"]
            return "[[A]]" if "[The Start of Assistant A's Answer]\nbest:" in text else "[[B]]"

    together.answers = Opinion(best="")
    found = compare(
        targets("plain", "best"),
        load_dataset(str(capitals), size=3),
        tmp_path / "o",
        judging=load_target("together:judge"),
        quiet=True,
        at_once=1,
    )
    together.answers = {}
    row = found["targets"]["together:best"]
    assert (row["wins"], row["losses"], row["ties"], row["by_order"]) == (3, 0, 0, 0)
    assert row["quality"]["value"] == 1
    assert not found["judge"]["position_bias"]["biased"]
    assert found["pairs"][0]["value"] == 0.5
    assert "3 questions are too few" in report(found)


def test_identical_answers_tie_and_cost_no_judgment(together, capitals, tmp_path):
    together.answer_all = "the same"
    found = compare(
        targets("a", "b"),
        load_dataset(str(capitals)),
        tmp_path / "o",
        judging=load_target("together:judge"),
        quiet=True,
    )
    assert not together.of("judge")
    row = found["targets"]["together:b"]
    assert (row["identical"], row["ties"], row["quality"]["value"]) == (4, 4, 0.5)


def test_judge_without_a_verdict_is_told_and_asked_again(together, capitals, tmp_path):
    together.answers["judge"] = "I cannot decide."
    run = {
        "targets": targets("a", "b"),
        "dataset": load_dataset(str(capitals)),
        "folder": tmp_path / "o",
        "judging": load_target("together:judge"),
        "quiet": True,
    }
    with pytest.raises(EvalFailed, match="no verdict"):
        compare(**run)
    together.answers["judge"] = "[[C]]"
    found = compare(**run)
    assert found["targets"]["together:b"]["ties"] == 4
    assert len(together.of("a")) == len(together.of("b")) == 4


def test_failed_answers_leave_their_question_out_for_all_and_are_told(together, capitals, tmp_path):
    dataset = load_dataset(str(capitals), scorer="contains")
    run = {"dataset": dataset, "folder": tmp_path / "o", "quiet": True, "at_once": 1}
    found = compare(targets("a", "b?fail_first=3"), **run)
    assert (found["n"], found["asked"]) == (3, 4)
    assert [f["target"] for f in found["failures"]] == ["together:b?fail_first=3"]
    assert "1 answers failed" in report(found)
    found = compare(targets("a", "b?fail_first=3"), **run)
    assert found["n"] == 4
    assert len(together.of("a")) == 4


def test_order_of_answers_in_the_prompt(together):
    pair = Pair("Q?", None, "MINE", "THEIRS", answer_first=True)
    together.answers["judge"] = "[[A]] no, [[B]]"

    async def preference(pair):
        return (await pairwise.compare(load_target("together:judge"), pair))["preference"]

    import asyncio

    assert asyncio.run(preference(pair)) == 0
    text = together.calls[-1].messages[1]["content"]
    assert text.index("MINE") < text.index("THEIRS")
    assert asyncio.run(preference(Pair("Q?", "R", "MINE", "THEIRS", answer_first=False))) == 1
    text = together.calls[-1].messages[1]["content"]
    assert "[The Start of Reference Answer]\nR\n" in text
    assert text.index("THEIRS") < text.index("MINE")


def test_pairwise_prompts_are_the_published_ones(data):
    from moa_graph.evals.files import read_rows

    published = {r["name"]: r for r in read_rows(data / "mt_bench/judge_prompts.jsonl")}
    assert published["pair-v2"]["system_prompt"] == pairwise.SYSTEM
    assert published["pair-math-v1"]["system_prompt"] == pairwise.SYSTEM_WITH_REFERENCE
    plain = published["pair-v2"]["prompt_template"]
    assert plain == pairwise._QUESTION + pairwise._ANSWERS
    reference = published["pair-math-v1"]["prompt_template"].replace("ref_answer_1", "reference")
    assert reference == pairwise._QUESTION + pairwise._REFERENCE + pairwise._ANSWERS


@pytest.mark.full
def test_length_control_takes_the_advantage_of_length_away():
    rng = random.Random(0)
    longer = [rng.randint(-400, 900) for _ in range(300)]
    means = [float(rng.random() < 1 / (1 + 2.7 ** (-gap / 300))) for gap in longer]
    found, _ = length_controlled(means, [1000 + gap for gap in longer], [1000] * 300)
    raw = sum(means) / len(means)
    assert raw > 0.58
    assert abs(found.value - 0.5) < 0.06
    assert found.low < found.value < found.high


def test_position_bias_is_not_claimed_of_few_or_balanced_verdicts():
    assert not pairwise.position_bias([1, 0] * 20)["biased"]
    assert not pairwise.position_bias([1, 1, 0, 0.5])["biased"]
    assert not pairwise.position_bias([1])["biased"]
    assert pairwise.position_bias([1, 1])["biased"]
    assert "second answer" in pairwise.position_bias([0] * 20)["sentence"]
    assert pairwise.position_bias([0.5] * 5)["sentence"] == "The judge called every pair a tie."


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (["a"], {}, "two or more"),
        (["a", "a"], {}, "Two configurations are named"),
        (["a", "b"], {}, "has no scorer: give a judge"),
        (["a", "b"], {"baseline": "z"}, "The baseline 'z' must be one of"),
    ],
)
def test_wrong_comparisons_are_refused_before_anything_is_asked(
    together, capitals, tmp_path, names, more, said
):
    with pytest.raises(EvalError, match=said):
        compare(targets(*names), load_dataset(str(capitals)), tmp_path, quiet=True, **more)
    assert not together.calls


def test_judge_without_a_key_is_refused_before_anything_is_asked(together, capitals, tmp_path):
    judging = load_target("openai:gpt-4-turbo")
    with pytest.raises(EvalError, match=r"The judge openai:gpt-4-turbo: .*OPENAI_API_KEY"):
        compare(targets("a", "b"), load_dataset(str(capitals)), tmp_path, judging=judging)
    assert not together.calls


# --- datasets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"x": 1}], {}, "has no field with the question. It has: x"),
        ([{"question": "a"}], {"scorer": "exact"}, "no field with the right answer"),
        ([{"question": "a"}, {"x": 1}], {}, "row 2: has no field 'question'"),
        ([{"question": "a"}], {"question": "questoin"}, "Did you mean 'question'"),
        ([{"question": " "}], {}, "must be a string or a list of messages"),
        ([{"question": "a", "answer": None}], {"scorer": "exact"}, "is empty, and --scorer"),
        ([{"question": "a", "answer": "no"}], {"scorer": "number"}, "has no number"),
        ([{"question": "a", "answer": "12:30"}], {"scorer": "number"}, "row 1.*has no number"),
        ([{"question": "a", "answer": "10^5"}], {"scorer": "number"}, "has no number"),
        ([{"question": "a", "answer": ""}], {"scorer": "contains"}, "nothing to find"),
        ([{"question": "a", "answer": "?"}], {"scorer": "exact"}, "nothing to find"),
        ([{"question": "a"}], {"scorer": "exakt"}, "Did you mean 'exact'"),
        ([{"messages": [{"role": "nobody", "content": "x"}]}], {}, "holds no messages"),
    ],
)
def test_wrong_datasets_are_refused(tmp_path, rows, options, said):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(EvalError, match=said):
        load_dataset(str(path), **options)


def test_langsmith_dataset_needs_a_key():
    with pytest.raises(EvalError, match="set LANGSMITH_API_KEY"):
        load_dataset("langsmith:mine", scorer="exact")


def test_conversations_are_asked_as_they_are(tmp_path):
    path = tmp_path / "d.jsonl"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    path.write_text(json.dumps({"messages": messages}))
    (item,) = load_dataset(str(path)).items
    assert [m.type for m in item.messages] == ["system", "human"]
    assert item.turns == ("Hi",)


@pytest.mark.parametrize(
    ("scorer", "right", "answer", "score"),
    [
        ("exact", "Paris", "The answer is: **Paris**.", 1),
        ("exact", "Paris", "Paris or Rome", 0),
        ("number", "1,200", "So it costs $1200.", 1),
        ("number", "5", "5 or 6", 0),
        ("number", "3/7", "Rating: [[7]]", 0),
        ("number", "3/4", "so it is 0.75", 1),
        ("number", "1.5e3", "1,500 of them", 1),
        ("number", "5", "It is 2^5.", 0),
        ("number", "2 + 3 = 5\n#### 5", "5", 1),
        ("contains", "Paris", "it is PARIS, of course", 1),
    ],
)
def test_scorers(tmp_path, scorer, right, answer, score):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"input": "q", "output": right}]))
    (item,) = load_dataset(str(path), scorer=scorer).items
    assert item.score(answer) == score


@pytest.mark.parametrize("task", ["countdown", "simple_integration", "polynomial_multiplication"])
def test_text_of_a_model_is_never_run(task, tmp_path):
    payload = f"__import__('pathlib').Path({str(tmp_path / 'run')!r}).touch()"
    for item in load_dataset(f"reasoning-gym:{task}", size=2).items:
        assert item.score(payload) == 0
        assert item.score(str(item.reference)) == 1
    assert not (tmp_path / "run").exists()


def test_scorer_that_stumbles_over_a_text_finds_it_wrong():
    (item,) = load_dataset("reasoning-gym:prime_factorization", size=1).items
    assert item.score("The answer is five.") == 0
    assert item.score(item.reference) == 1


def test_generated_tasks_are_seeded_and_bring_their_scorer():
    first = load_dataset("reasoning-gym:chain_sum?max_digits=1&max_terms=2", size=5)
    again = load_dataset("reasoning-gym:chain_sum?max_digits=1&max_terms=2", size=5)
    other = load_dataset("reasoning-gym:chain_sum?max_digits=1&max_terms=2", size=5, seed=7)
    assert first.digest == again.digest != other.digest
    for item in first.items:
        assert isinstance(item.messages[0], HumanMessage)
        assert item.score(item.reference) == 1
        assert item.score(f"Adding them gives {item.reference}.") == 1
        assert item.score(f"The answer is: {item.reference}") == 1
        assert item.score(str(int(item.reference) + 1)) == 0
        assert item.score("") == 0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("reasoning-gym:chain_sun", "Did you mean 'chain_sum'"),
        ("reasoning-gym:chain_sum?colour=red", "does not make chain_sum with 'colour=red'"),
    ],
)
def test_wrong_tasks_are_refused(spec, said):
    with pytest.raises(EvalError, match=said):
        load_dataset(spec)


@pytest.mark.parametrize("value", ['["x"]', "{}", "NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("options", [{"scorer": "exact"}, {"reference": "answer"}, {}])
def test_right_answers_that_are_no_text_are_refused(tmp_path, value, options):
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"question": "q", "answer": "x"}}\n{{"question": "r", "answer": {value}}}\n')
    with pytest.raises(EvalError, match=r"(row|line) 2.*"):
        load_dataset(str(path), **options)
