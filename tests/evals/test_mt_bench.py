from __future__ import annotations

import json

import pytest

from moa_graph.evals import mt_bench, mt_bench_scores
from moa_graph.evals.files import EvalError, EvalFailed, read_rows
from moa_graph.evals.targets import load_target

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
    {"question_id": 111, "category": "math", "turns": ["1+1?", "And 2+2?"]},
]
REFERENCES = {"111": ["2", "4"]}


def row(question, turn, score, judgment=None, model="m", **more):
    judgment = f"Rating: [[{score}]]" if judgment is None else judgment
    return {
        "question_id": question,
        "model": model,
        "turn": turn,
        "score": score,
        "judgment": judgment,
        **more,
    }


def test_recorded_gradings_give_every_score_and_the_recorded_averages(data):
    rows = mt_bench_scores.read_gradings(
        data / "mt_bench/judgments_routellm_gpt4turbo_mixtral8x7b.jsonl.gz"
    )
    assert len(rows) == 320
    assert all(mt_bench.rating(r["judgment"]) == r["score"] for r in rows)
    found = mt_bench_scores.scores(rows)
    gpt, mixtral = found["gpt-4-1106-preview"], found["mistralai/Mixtral-8x7B-Instruct-v0.1"]
    assert (gpt["average"], gpt["first_turn"], gpt["second_turn"]) == pytest.approx(
        (9.228, 9.406, 9.050), abs=5e-4
    )
    assert (mixtral["average"], mixtral["first_turn"], mixtral["second_turn"]) == pytest.approx(
        (8.341, 8.694, 7.988), abs=5.1e-4
    )
    assert set(gpt["categories"]) == set(mt_bench_scores.CATEGORIES)
    assert "| 8.341 |  8.694 |  7.988 |" in mt_bench_scores.report(found)


def test_prompts_are_the_published_ones(data):
    published = {r["name"]: r for r in read_rows(data / "mt_bench/judge_prompts.jsonl")}
    for (turn, _), prompt in mt_bench.PROMPTS.items():
        template = published[prompt.name]["prompt_template"]
        if turn == 1:
            template = template.replace("{question}", "{question_1}")
            template = template.replace("{answer}", "{answer_1}")
        assert prompt.template == template
        assert prompt.system == published[prompt.name]["system_prompt"]


def test_judges_are_told_what_the_recorded_ones_were(data):
    questions = {q["question_id"]: q for q in read_rows(data / "mt_bench/question.jsonl")}
    references = mt_bench.load_references(data / "mt_bench/reference_answer_gpt-4.jsonl")
    recorded = read_rows(data / "mt_bench/judgments_routellm_gpt4turbo_mixtral8x7b.jsonl.gz")
    compared = 0
    for r in recorded:
        if r["judge"][1] != "single-v1":
            continue
        before, _, rest = r["user_prompt"].partition("[The Start of Assistant's Answer]\n")
        answer = rest.removesuffix("\n[The End of Assistant's Answer]")
        prompt, text = mt_bench.case(questions[r["question_id"]], [answer], references, 1)
        assert (prompt.name, text) == ("single-v1", r["user_prompt"]), before
        compared += 1
    assert compared == 100


def test_errors_and_duplicates_are_listed():
    rows = [
        row(81, 1, 8),
        row(81, 2, 6),
        row(111, 1, -1, "$ERROR$"),
        row(81, 1, 9),  # again
        row(111, 2, -1),  # no rating
        row(112, 1, 7, "It is a [[3]]"),
    ]
    found = mt_bench_scores.scores(rows)["m"]
    assert found["n"] == 4
    assert found["average"] == pytest.approx((8 + 6 + 9 + 7) / 4)
    assert found["average_once"] == pytest.approx((9 + 6 + 7) / 3)
    assert found["without_score"] == ["question 111, turn 1", "question 111, turn 2"]
    assert found["duplicates"] == ["question 81, turn 1"]
    assert found["differing"] == ["question 112, turn 1"]
    text = mt_bench_scores.report({"m": found})
    assert "left out of the averages: question 111, turn 1" in text
    assert "graded more than once" in text


@pytest.mark.parametrize(
    ("judgment", "score"),
    [
        ("Rating: [[7]]", 7),
        ("Rating: [[7.5]]", 7.5),
        ("A [[3]] at first, but [[8]]", 8),
        ("Rating: [6]", 6),
        ("see [1]. Rating: [[9]]", 9),
        ("nothing", -1),
        ("$ERROR$", -1),
        ("[[²]]", -1),
    ],
)
def test_rating_is_the_last_one(judgment, score):
    assert mt_bench.rating(judgment) == score


def test_second_turn_sees_the_first_answer(together, tmp_path):
    target = load_target("together:alpha")
    answers = mt_bench.generate(target, QUESTIONS, tmp_path, quiet=True)
    assert answers["81"]["answers"] == ["alpha: Write.", "alpha: Again."]
    second = next(c for c in together.calls if c.messages[-1]["content"] == "Again.")
    assert [m["role"] for m in second.messages] == ["user", "assistant", "user"]
    assert second.messages[1]["content"] == "alpha: Write."
    written = [json.loads(line) for line in (tmp_path / "model_answer.jsonl").open()]
    assert written[0]["choices"] == [{"index": 0, "turns": ["alpha: Write.", "alpha: Again."]}]


def test_first_turn_is_kept_when_the_second_fails(together, tmp_path):
    mixture = tmp_path / "mix.toml"
    mixture.write_text(
        'proposers = ["together:p"]\naggregator = "together:alpha?window=300"\ncalls = { retries = 0 }\n'
    )
    long = [{"question_id": 81, "category": "writing", "turns": ["Write.", "x " * 1500]}]
    for _ in range(2):
        with pytest.raises(EvalFailed, match="turn 2"):
            mt_bench.generate(load_target(mixture), long, tmp_path, quiet=True)
    assert len([c for c in together.of("p") if len(c.messages) == 1]) == 1


def test_reference_answers_go_to_math_reasoning_and_coding(together, tmp_path):
    together.answers["judge"] = "Good. Rating: [[9]]"
    answers = {
        "81": {"answers": ["a", "b"]},
        "111": {"answers": ["2", "4"]},
    }
    judging = load_target("together:judge")
    rows = mt_bench.judge(judging, "m", QUESTIONS, answers, REFERENCES, tmp_path, quiet=True)
    assert [r["judge"][1] for r in rows] == [
        "single-v1",
        "single-v1-multi-turn",
        "single-math-v1",
        "single-math-v1-multi-turn",
    ]
    assert mt_bench_scores.scores(rows)["m"]["average"] == 9
    calls = len(together.calls)
    mt_bench.judge(judging, "m", QUESTIONS, answers, REFERENCES, tmp_path, quiet=True)
    assert len(together.calls) == calls


def test_turn_is_kept_as_it_comes(together, tmp_path):
    mt_bench.generate(load_target("together:alpha"), QUESTIONS[:1], tmp_path, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").open()][1:]
    assert [len(r["turns"]) for r in rows] == [1, 2]
    assert [bool(r.get("error")) for r in rows] == [True, False]


def test_missing_reference_is_told():
    with pytest.raises(EvalError, match="no reference answer to question 111"):
        mt_bench.case(QUESTIONS[1], ["2"], {}, 1)


def test_rows_without_score_and_our_own_failed_rows_are_listed(tmp_path):
    rows = [
        {"about": {}},
        {"key": "81-1-x", **row(81, 1, 8)},
        {"key": "82-2-x", "error": "late"},
        {"key": "83-1-x", "error": "late"},
        {"key": "83-1-x", **row(83, 1, 6)},
        {"question_id": 84, "model": "m", "turn": 1, "score": None, "judgment": None},
        {"question_id": 85, "model": "m", "turn": 1, "judgment": "Rating: [[4]]"},
    ]
    (tmp_path / "g.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = mt_bench_scores.scores(mt_bench_scores.read_gradings(tmp_path / "g.jsonl"))
    assert found["m"]["average"] == pytest.approx((8 + 6 + 4) / 3)
    assert found["m"]["without_score"] == ["question 84, turn 1"]
    assert found["unknown"]["without_score"] == ["question 82, turn 2"]


@pytest.mark.parametrize("field", ["question_id", "model", "turn"])
def test_gradings_need_their_fields(tmp_path, field):
    bad = {k: v for k, v in row(81, 1, 5).items() if k != field}
    (tmp_path / "g.jsonl").write_text(json.dumps(bad) + "\n")
    with pytest.raises(EvalError, match=f"has no field '{field}'"):
        mt_bench_scores.read_gradings(tmp_path / "g.jsonl")


def test_scores_of_another_scale_count_and_are_told():
    rows = [row(81 + i, 1, 70 + i) for i in range(20)]
    found = mt_bench_scores.scores(rows)
    assert found["m"]["n"] == 20
    assert found["m"]["average"] == 79.5
    report = mt_bench_scores.report(found)
    assert "m: the scores run from 70 to 89, which is not MT-Bench's scale of 1 to 10" in report


@pytest.mark.parametrize("score", ["NaN", "Infinity", "[9]", '"nine"', "true", "{}", '"1e999"'])
def test_scores_that_are_no_numbers_are_refused(tmp_path, score):
    good = '{"question_id": 81, "model": "m", "turn": 1, "score": 9, "judgment": "[[9]]"}'
    path = tmp_path / "g.jsonl"
    path.write_text(f"{good}\n{good.replace('9,', f'{score},', 1)}\n")
    with pytest.raises(EvalError, match=r"`score` is .*, but must be a finite number|row 2|line 2"):
        mt_bench_scores.read_gradings(path)
