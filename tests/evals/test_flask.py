from __future__ import annotations

import json
import statistics
from collections import defaultdict

import pytest

from moa_graph.evals import flask, flask_reviews
from moa_graph.evals.files import EvalError
from moa_graph.evals.targets import load_target

ASKED = ["Readability", "Logical Correctness", "Conciseness"]


def test_every_skill_that_is_asked_for_is_described_or_nothing_is_asked(data, tmp_path):
    (tmp_path / "prompt.jsonl").write_bytes((data / "flask/review_prompt.jsonl").read_bytes())
    described = json.loads((data / "flask/skillset_description.json").read_text())
    (tmp_path / "skillset_description.json").write_text(json.dumps(described[1:]))
    row = {"idx": 1, "instruction": "x", "answer": "y", "skill": list(flask.SKILLS)}
    (tmp_path / "flask_evaluation.jsonl").write_text(json.dumps(row))
    with pytest.raises(EvalError, match="does not describe the skill"):
        flask.load(tmp_path)


def item(review, idx=1, **more):
    return {"idx": idx, "skill": ASKED, "review": review, **more}


def test_every_published_item_has_a_prompt_and_known_skills(data):
    loaded = flask.load(data / "flask")
    assert len(loaded.questions) == 1740
    assert len(flask.load(data / "flask", hard=True).questions) == 89
    for question in loaded.questions:
        text = flask.review_prompt(question, "THE RESPONSE", loaded)
        assert "THE RESPONSE" in text
        assert question["instruction"] in text
        for skill in question["skill"]:
            assert f"\n{skill}" in text
            assert flask._skill(skill) in flask.SKILLS


def test_reviews_in_the_published_format_are_averaged_by_skill(data):
    questions = flask.load(data / "flask").questions[:300]
    given, rows = defaultdict(list), []
    for i, question in enumerate(questions):
        scores = {skill: 1 + (i + k) % 5 for k, skill in enumerate(question["skill"])}
        for skill, score in scores.items():
            given[flask._skill(skill)].append(score)
        rows.append({**question, "review": f"It is good {{sic}}. Scores:\n{scores!r}"})
    found = flask.scores(rows)
    assert found["skills"] == pytest.approx({s: statistics.mean(v) for s, v in given.items()})
    assert found["malformed"] == found["missing"] == found["not_applicable"] == []


@pytest.mark.parametrize(
    ("review", "skills", "malformed", "missing"),
    [
        ("{'Readability': 4, 'Logical Correctness': 5, 'Conciseness': 3}", 3, 0, 0),
        ("{'readability': '4', 'logical_correctness': 4.5, 'conciseness': 3}", 3, 0, 0),
        ("{'Readability': 4,\n 'Correctness': 5,\n 'Conciseness': 3\n}", 3, 0, 0),
        ("first {'Readability': 1} then {'Readability': 4}", 1, 0, 2),
        ("{'Readability': 9, 'Logical Correctness': 0, 'Conciseness': 3}", 1, 2, 0),
        ("{'Readability': None, 'Logical Correctness': [5], 'Conciseness': 3}", 1, 1, 1),
        ("{'Readability': 4, 'Logical Correctness': null, 'Conciseness': 3} # none", 2, 0, 1),
        ("{'Readability': 4, # good\n 'Logical Correctness': 5, 'Conciseness': 3}", 3, 0, 0),
        ("{'Readability': 4, 'Logical Correctness': 5, 'Conciseness': 3} by {me}", 3, 0, 0),
        ("{'Readability': 4, 'Readability': 1, 'Conciseness': 3}", 1, 1, 1),
        ("{'Readability': 'good', 'Logical Correctness': 5}", 1, 1, 1),
        ("no scores at all", 0, 1, 3),
        ("", 0, 1, 3),
        ("{'Readability': 4, 'Logical", 0, 1, 3),
        ("{'Readability': 4, 'Style': 5}", 1, 1, 2),
        ("{'Readability': 4, 'Factuality': 5}", 1, 1, 2),
        ("{'Readability': open('x')}", 0, 1, 2),
        ("{1, 2}", 0, 1, 3),
        ("{'Readability': 1e400}", 0, 1, 2),
        ("{'Readability': 1" + "0" * 400 + "}", 0, 1, 2),
    ],
)
def test_malformed_and_missing_ratings_are_counted_and_never_averaged_in(
    review, skills, malformed, missing
):
    found = flask.scores([item(review)])
    assert (len(found["skills"]), len(found["malformed"]), len(found["missing"])) == (
        skills,
        malformed,
        missing,
    )
    assert all(sentence.startswith("item 1: ") for sentence in found["malformed"])
    assert all(1 <= score <= 5 for score in found["skills"].values())


def test_what_does_not_apply_is_listed_by_itself():
    found = flask.scores(
        [item("{'Readability': 'N/A', 'Logical Correctness': 'not applicable', 'Conciseness': 2}")]
    )
    assert found["not_applicable"] == ["item 1: Readability", "item 1: Logical Correctness"]
    assert found["skills"] == {"Conciseness": 2}
    assert not found["missing"]


def test_skills_come_from_the_evaluation_set_where_a_review_has_none():
    rows = [{"question_id": 7, "review": "{'Readability': 4}"}]
    assert flask.scores(rows)["missing"] == []
    found = flask.scores(rows, [{"idx": 7, "skill": ASKED}])
    assert found["missing"] == ["item 7: Conciseness", "item 7: Logical Correctness"]


def test_ratings_of_one_review():
    assert flask_reviews.ratings("{'Readability': 4, 'Conciseness': 'N/A'}") == {
        "readability": 4,
        "conciseness": None,
    }
    with pytest.raises(ValueError, match="no dictionary"):
        flask_reviews.ratings("nothing")


def test_answers_are_reviewed_once(data, together, tmp_path):
    together.answers["judge"] = "{'Readability': 4, 'Logical Correctness': 5, 'Conciseness': 3}"
    loaded = flask.load(data / "flask")
    some = flask.FlaskData(loaded.questions[:3], loaded.prompt, loaded.skills)
    answers = flask.generate(load_target("together:alpha"), some, tmp_path, quiet=True)
    judging = load_target("together:judge")
    for _ in range(2):
        rows = flask.review(judging, "alpha", some, answers, tmp_path, quiet=True)
    assert len(together.of("judge")) == 3
    assert together.of("judge")[0].system == loaded.prompt["system_prompt"]
    assert flask.scores(rows)["skills"]["Readability"] == 4


def test_a_bare_not_applicable_leaves_the_other_ratings():
    found = flask.scores([item("{'Readability': 4, 'Logical Correctness': N/A, 'Conciseness': 3}")])
    assert found["skills"] == {"Readability": 4, "Conciseness": 3}
    assert found["not_applicable"] == ["item 1: Logical Correctness"]


def test_several_reviews_of_an_item_and_items_without_one_are_listed():
    questions = [{"idx": 7, "skill": ["Readability"]}, {"idx": 8, "skill": ["Readability"]}]
    rows = [{"idx": 7, "review": "{'Readability': 1}"}, {"idx": 7, "review": "{'Readability': 5}"}]
    found = flask.scores(rows, questions)
    assert found["skills"] == {"Readability": 3}
    assert found["duplicates"] == ["item 7: 2 reviews"]
    assert found["unreviewed"] == ["item 8"]
    assert "without a review (1)" in flask.report({"m": found})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"skill": ["Humour"]}, "'Humour' of 1 is not a skill of FLASK"),
        ({"skill": []}, "is not a skill of FLASK"),
        ({"instruction": None}, "the instruction of 1 must be a string"),
        ({"idx": 2}, "has '2' twice"),
    ],
)
def test_what_is_wrong_with_a_question_is_told_before_it_is_asked(data, tmp_path, change, said):
    for name in ("review_prompt.jsonl", "skillset_description.json"):
        (tmp_path / name).write_bytes((data / "flask" / name).read_bytes())
    good = {"instruction": "x", "answer": "y", "skill": "['Readability', 'Factuality']"}
    rows = [{"idx": 1, **good, **change}, {"idx": 2, **good}]
    path = tmp_path / "flask_evaluation.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(EvalError, match=said):
        flask.load(tmp_path)
    path.write_text(json.dumps(rows[1]))
    assert flask.load(tmp_path).questions[0]["skill"] == ["Readability", "Factuality"]


def test_failed_rows_of_others_are_listed(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps({"idx": 7, "error": "late"}))
    found = flask.scores(flask_reviews.read_reviews(tmp_path / "r.jsonl"))
    assert found["malformed"] == ["item 7: the review has no dictionary of ratings"]


def test_own_rows_that_failed_and_empty_reviews_are_listed(tmp_path):
    rows = [
        {"about": {}},
        {"key": "7-x", "error": "late"},
        {"idx": 8, "skill": "Factuality", "review": ""},
        {"idx": 9, "skill": "Factuality", "review": "{'Factuality': 3}"},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = flask.scores(flask_reviews.read_reviews(tmp_path / "r.jsonl"))
    assert found["skills"] == {"Factuality": 3}
    assert len(found["malformed"]) == 2
    assert found["missing"] == ["item 8: Factuality"]


@pytest.mark.parametrize("review", ["null", "NaN", "Infinity", "[4]", "{}", "4", "true"])
def test_a_review_that_is_no_string_is_refused(tmp_path, review):
    path = tmp_path / "r.jsonl"
    path.write_text(f'{{"idx": 8, "review": {review}}}')
    with pytest.raises(EvalError, match="row 1: 'review' must be a string, not "):
        flask_reviews.read_reviews(path)


def test_missing_files_say_where_they_come_from(tmp_path):
    with pytest.raises(EvalError, match="kaistAI/FLASK"):
        flask.load(tmp_path)


def test_reviews_need_a_review(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps({"idx": 1}) + "\n")
    with pytest.raises(EvalError, match="has no field 'review'"):
        flask_reviews.read_reviews(tmp_path / "r.jsonl")
