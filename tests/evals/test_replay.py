from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from moa_graph.evals import replay
from moa_graph.evals.files import EvalError
from moa_graph.evals.verifiable import read_set

UNLIKE_PUBLISHED = {"yi-large", "yi-large-preview"}  # whose recorded verdicts are others


@pytest.fixture(scope="module")
def sets():
    from tests.evals.conftest import DATA

    if not DATA.is_dir():
        pytest.skip("needs the recorded public data in ../shared/data")
    return {name: read_set(DATA / "zero_eval" / name) for name in ("gsm", "math-l5")}


@pytest.mark.parametrize("name", ["gsm", "math-l5"])
def test_published_accuracies_are_reproduced(sets, name):
    rows = replay.accuracies(sets[name])
    assert len(rows) >= 43
    assert sum(row["published"] is not None for row in rows) >= 43
    for row in rows:
        if row["model"] not in UNLIKE_PUBLISHED:
            assert row["accuracy"] == row["published"], row
    assert all(row["disagreeing"] == 0 for row in rows)
    assert sum(row["replies"] for row in rows) >= 12


def test_strategies_of_the_graph_choose_as_counting_by_hand(sets):
    recorded = sets["gsm"]
    pool = ["gemma-2-9b-it", "Qwen2-7B-Instruct", "Meta-Llama-3-8B-Instruct"]
    found = replay.replay(recorded, pool, limit=150, quiet=True)
    members = [recorded.models[name] for name in pool]
    for i, key in enumerate(list(recorded.questions)[:150]):
        votes = [m.answers[key] for m in members if m.answers[key].answer is not None]
        counts = Counter(v.answer for v in votes)
        winner = next(v for v in votes if counts[v.answer] == max(counts.values()))
        assert found["correct"][replay.MAJORITY][i] == winner.correct
        assert found["correct"][replay.ORACLE][i] == max(m.answers[key].correct for m in members)
    n = found["n"]
    assert n == 150
    mean = sum(found["correct"][name][i] for name in pool for i in range(n)) / (3 * n)
    assert found["strategies"][replay.RANDOM]["value"] == pytest.approx(mean)


@pytest.mark.full
def test_voting_wins_with_similar_models_and_loses_with_weak_ones(sets):
    recorded = sets["gsm"]
    pools = replay.default_pools(recorded)
    assert [len(pool) for pool in pools.values()] == [5, 5, 15]
    similar = replay.replay(recorded, pools["similar"], limit=250, quiet=True)
    weak = replay.replay(recorded, pools["strong with weak"], limit=250, quiet=True)
    assert similar["against_best"][replay.MAJORITY]["low"] > 0
    assert weak["strategies"][replay.AGREEMENT]["value"] < weak["strategies"][replay.BEST]["value"]
    text = replay.report(recorded, replay.accuracies(recorded), {"similar": similar, "weak": weak})
    assert "majority has the higher accuracy than the best model" in text
    assert "agreement by TF-IDF has the lower accuracy than the best model" in text


def test_models_without_replies_vote_by_their_recorded_answers(sets):
    pool = ["yi-large", "gpt-4o-2024-05-13", "gemini-1.5-flash-exp-0827"]
    found = replay.replay(sets["gsm"], pool, limit=50, quiet=True)
    assert found["strategies"][replay.AGREEMENT] is None
    assert found["strategies"][replay.MAJORITY]["value"] > 0.8


def write_set(folder, golds, replies, verdicts=None):
    (folder / "outputs").mkdir(parents=True)
    rows = [{"id": str(i), "question": f"q{i}", "gold": g} for i, g in enumerate(golds)]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, texts in replies.items():
        lines = [json.dumps({"id": str(i), "output": text}) for i, text in enumerate(texts)]
        (folder / "outputs" / f"{name}.jsonl").write_text("\n".join(lines))
    if verdicts:
        lines = [
            json.dumps(
                {
                    "id": str(i),
                    "key": dict.fromkeys(verdicts),
                    "ok": {m: verdicts[m][i] for m in verdicts},
                }
            )
            for i in range(len(golds))
        ]
        (folder / "answers_all_models.jsonl").write_text("\n".join(lines))
    return folder


def answer(text):
    return json.dumps({"reasoning": "…", "answer": text})


def test_set_of_choices_and_set_of_texts(tmp_path):
    choices = read_set(
        write_set(tmp_path / "a", ["A", "C"], {"m": [answer("A) yes"), answer("B")]})
    )
    assert choices.models["m"].accuracy == 0.5
    texts = read_set(
        write_set(tmp_path / "b", ["'ab'", "[1, 2]"], {"m": [answer("ab"), answer("[1, 2]")]})
    )
    assert texts.models["m"].accuracy == 1


def test_recorded_verdict_counts_where_answers_are_no_numbers(tmp_path):
    folder = write_set(
        tmp_path / "a", ["x", "y"], {"m": [answer("(x)"), answer("z")]}, {"m": [1, 0]}
    )
    recorded = read_set(folder)
    assert recorded.models["m"].accuracy == 0.5
    assert recorded.models["m"].answers["0"].reply


def test_recorded_answers_are_voted_on_where_replies_cannot_be_read(tmp_path):
    says = {m: ["The answer is B", "It is A."] for m in "xyz"}
    folder = write_set(tmp_path / "a", ["B", "A"], says, {m: [1, 1] for m in "xyz"})
    rows = [
        {"id": str(i), "key": dict.fromkeys("xyz", key), "ok": dict.fromkeys("xyz", 1)}
        for i, key in enumerate("BA")
    ]
    (folder / "answers_all_models.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recorded = read_set(folder)
    found = replay.replay(recorded, list("xyz"), quiet=True)
    assert found["correct"][replay.MAJORITY] == [1, 1]
    models = replay.accuracies(recorded)
    assert {row["disagreeing"] for row in models} == {2}
    text = replay.report(recorded, models, {})
    assert "Recorded verdicts that differ from what the replies say here: x 2, y 2, z 2." in text


def test_a_recorded_verdict_is_0_or_1(tmp_path):
    folder = write_set(tmp_path / "a", ["1"], {"m": [answer("1")]}, {"m": ["0"]})
    with pytest.raises(EvalError, match="`ok` of '0' and m must be 0 or 1"):
        read_set(folder)


@pytest.mark.parametrize(
    ("table", "published"),
    [
        ("| Model | Mode | Acc |\n|---|---|---|\n| m | greedy | 50.00 |", 50),
        ("| Model | Acc |\n|---|---|\n| **m** | **50.00** |", 50),
        ("| Model | Puzzle Acc | Cell Acc |\n|---|---|---|\n| m | 7.00 | 77.00 |", None),
        ("no table", None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_published_tables_are_read(tmp_path, table, published, encoding):
    folder = write_set(tmp_path / "a", ["1", "2"], {"m": [answer("1"), answer("3")]})
    (folder / "published_summary.md").write_text(table, encoding=encoding)
    assert read_set(folder).models["m"].published == published


def test_a_published_table_that_is_no_text_is_told(tmp_path):
    folder = write_set(tmp_path / "a", ["1"], {"m": [answer("1")]})
    (folder / "published_summary.md").write_text("é", encoding="latin-1")
    with pytest.raises(EvalError, match=r"published_summary\.md cannot be read"):
        read_set(folder)


def test_zero_evals_own_results_are_read(tmp_path):
    for name, says in (("x", "4"), ("y", "5")):
        items = [{"id": "1", "question": "2+2?", "answer": "#### 4", "output": [answer(says)]}]
        data = json.dumps(items).encode()
        path = tmp_path / (f"{name}.json" if name == "x" else f"{name}.json.gz")
        path.write_bytes(data if name == "x" else gzip.compress(data))
    recorded = read_set(tmp_path)
    assert {n: m.accuracy for n, m in recorded.models.items()} == {"x": 1, "y": 0}


def test_zero_evals_choices_are_scored_as_its_script_does(tmp_path):
    said = ["B", "(B) yes", "A) or B)", "B.", "b", "A", "no idea"]
    items = [
        {
            "id": str(i),
            "question": f"q{i}",
            "choices": ["x", "y", "z"],
            "correct_answer": "y",
            "output": [answer(text)],
        }
        for i, text in enumerate(said)
    ]
    folder = tmp_path / "mmlu-redux"
    folder.mkdir()
    (folder / "m.json").write_text(json.dumps(items))
    (tmp_path / "mmlu-redux.summary.md").write_text(
        "| Model | Mode | Acc | No answer |\n|---|---|---|---|\n"
        "| m | sampling | 99.00 | 0 |\n| m | greedy | 42.86 | 0 |\n| m | greedy@no_cot | 1.00 | 0 |"
    )
    model = read_set(folder).models["m"]
    assert [a.correct for a in model.answers.values()] == [True] * 3 + [False] * 4
    assert [a.answer for a in model.answers.values()] == ["B", "B", "A", None, None, "A", None]
    assert model.published == pytest.approx(100 * model.accuracy, abs=0.005)


def test_zero_evals_results_without_a_right_answer_are_refused(tmp_path):
    item = {"id": "1", "question": "q", "choices": ["x"], "correct_answer": "y", "output": ["x"]}
    (tmp_path / "m.json").write_text(json.dumps([item]))
    with pytest.raises(EvalError, match="neither `answer` nor a `correct_answer` among"):
        read_set(tmp_path)


def test_question_that_nobody_answers_counts_as_wrong(tmp_path):
    folder = write_set(tmp_path / "a", ["1", "2"], {m: ["", answer("2")] for m in "xyz"})
    found = replay.replay(read_set(folder), list("xyz"), quiet=True)
    assert found["correct"][replay.MAJORITY] == [0, 1]
    assert found["correct"][replay.AGREEMENT] == [0, 1]


def test_accuracies_are_told_where_no_pool_can_be(tmp_path):
    recorded = read_set(write_set(tmp_path / "a", ["1", "2"], {"m": [answer("1"), answer("3")]}))
    assert replay.default_pools(recorded) == {}
    text = replay.report(recorded, replay.accuracies(recorded), {})
    assert "50.00" in text
    assert "name pools" in text


def test_large_numbers_without_replies_are_voted_on_as_they_are(tmp_path):
    folder = write_set(tmp_path / "a", ["1"], {})
    row = {"id": "0", "key": {"x": 1.0, "y": 1e16, "z": 1e16}, "ok": {"x": 1, "y": 0, "z": 0}}
    (folder / "answers_all_models.jsonl").write_text(json.dumps(row))
    found = replay.replay(read_set(folder), list("xyz"), quiet=True)
    assert found["correct"][replay.MAJORITY] == [0]


def test_same_question_twice_is_two_questions(tmp_path):
    folder = write_set(tmp_path / "a", ["1", "2"], {m: [answer("1"), answer("2")] for m in "xy"})
    text = (folder / "questions.jsonl").read_text().replace("q1", "q0")
    (folder / "questions.jsonl").write_text(text)
    found = replay.replay(read_set(folder), ["x", "y"], quiet=True)
    assert found["correct"][replay.MAJORITY] == [1, 1]


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (["x"], "at least two models"),
        (["x", "z"], "has no model 'z'"),
        (["x", "x"], "names 'x' twice"),
    ],
)
def test_wrong_pool_is_refused(tmp_path, pool, said):
    folder = write_set(tmp_path / "a", ["1"], {m: [answer("1")] for m in ("x", "y")})
    with pytest.raises(EvalError, match=said):
        replay.replay(read_set(folder), pool, quiet=True)


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(EvalError, match="There is no folder"):
        read_set(tmp_path / "nowhere")
    with pytest.raises(EvalError, match="nor results of ZeroEval"):
        read_set(tmp_path)
    folder = write_set(tmp_path / "a", ["1"], {})
    with pytest.raises(EvalError, match="has no recorded answers"):
        read_set(folder)
    cut = write_set(tmp_path / "b", ["1", "2"], {"m": [answer("1"), answer("2")]})
    text = (cut / "outputs" / "m.jsonl").read_text()
    (cut / "outputs" / "m.jsonl").write_text(text[:-9])
    with pytest.raises(EvalError, match=r"m.jsonl, line 2: is cut"):
        read_set(cut)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("'the cow goes moo#'", "'the cow goes moo#'"),
        ("['#', 'a']", "['#', 'a']"),
        ("#### 18", "18"),
        ("####18", "18"),
    ],
)
def test_a_right_answer_keeps_its_number_signs(tmp_path, answer, said):
    reply = json.dumps({"reasoning": "…", "answer": said})
    items = [{"id": "1", "question": "q", "answer": answer, "output": [reply]}]
    (tmp_path / "m.json").write_text(json.dumps(items))
    assert read_set(tmp_path).models["m"].accuracy == 1


def test_an_id_twice_in_a_models_results_is_told(tmp_path):
    item = {"id": "1", "question": "q", "answer": "x", "output": ["{}"]}
    (tmp_path / "m.json").write_text(json.dumps([item, item]))
    with pytest.raises(EvalError, match=r"m\.json has '1' twice"):
        read_set(tmp_path)


def test_accuracies_that_are_not_as_published_are_told_loudly(sets):
    rows = replay.accuracies(sets["gsm"])
    rows[0] |= {"published": rows[0]["accuracy"] - 0.5}
    report = replay.report(sets["gsm"], rows, {})
    assert "**WARNING: " in report
    assert f"{rows[0]['model']} ({rows[0]['accuracy']:.2f}, +0.50: None)" in report
