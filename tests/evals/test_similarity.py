from __future__ import annotations

import json

import numpy as np
import pytest
import sacrebleu
from rapidfuzz.distance import Levenshtein
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from moa_graph.evals import similarity_study
from moa_graph.evals.files import EvalError, read_rows

PROPOSERS = [
    "Qwen1.5-110B-Chat",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3-70B-Instruct",
    "Mixtral-8x22B-Instruct-v0.1",
    "dbrx-instruct",
]


def paths(data):
    return [
        data / f"alpaca_eval/{name}.model_outputs.json.gz" for name in ("Together-MoA", *PROPOSERS)
    ]


def test_means_equal_a_direct_computation_with_the_libraries(data):
    aggregate, *others = paths(data)
    rates = {name: float(-i) for i, name in enumerate(PROPOSERS)}
    found = similarity_study.study(aggregate, others, win_rates=rates, limit=40)
    texts = [{r["instruction"]: r["output"] for r in read_rows(path)} for path in paths(data)]
    asked = list(texts[0])[:40]
    for i, name in enumerate(PROPOSERS, 1):
        bleu, tf_idf, distance = [], [], []
        for question in asked:
            answers = [of[question] for of in texts]
            bleu.append(sacrebleu.sentence_bleu(answers[0], [answers[i]]).score)
            matrix = TfidfVectorizer().fit_transform(answers)
            tf_idf.append(cosine_similarity(matrix[0], matrix[i])[0, 0])
            distance.append(Levenshtein.normalized_similarity(answers[0], answers[i]))
        mine = found["proposers"][name]
        assert mine["bleu"]["value"] == pytest.approx(np.mean(bleu))
        assert mine["tf_idf"]["value"] == pytest.approx(np.mean(tf_idf))
        assert mine["levenshtein"]["value"] == pytest.approx(np.mean(distance))
        assert all(m["low"] < m["value"] < m["high"] for m in mine.values())
    over = [found["proposers"][name]["bleu"]["value"] for name in PROPOSERS]
    expected = spearmanr(over, [rates[name] for name in PROPOSERS]).statistic
    assert found["spearman"]["bleu"]["value"] == pytest.approx(expected)
    text = similarity_study.report(found)
    assert all(name in text for name in PROPOSERS)
    assert "Spearman" in text


def outputs(tmp_path, name, answers):
    path = tmp_path / f"{name}.json"
    rows = [{"instruction": f"q{i}", "output": a, "generator": name} for i, a in enumerate(answers)]
    path.write_text(json.dumps(rows))
    return path


def test_correlation_within_questions(tmp_path):
    aggregate = outputs(tmp_path, "agg", ["one two three four five"] * 4)
    said = ["one two three four five", "one two three", "one", "zzz"]
    files = [outputs(tmp_path, f"p{i}", [text] * 4) for i, text in enumerate(said)]
    preferences = []
    for i in range(4):
        path = tmp_path / f"a{i}.json"
        rows = [
            {"instruction": f"q{q}", "generator_2": f"p{i}", "preference": 2 - i / 4}
            for q in range(4)
        ]
        path.write_text(json.dumps(rows))
        preferences.append(path)
    found = similarity_study.study(aggregate, files, annotations=preferences)
    assert found["spearman_within"]["levenshtein"]["value"] == pytest.approx(1)
    assert found["spearman"] is None


def test_texts_without_words(tmp_path):
    found = similarity_study.study(outputs(tmp_path, "a", ["…"]), [outputs(tmp_path, "b", ["…"])])
    assert found["proposers"]["b"]["tf_idf"]["value"] == 0
    assert found["proposers"]["b"]["levenshtein"]["value"] == 1


def test_wrong_files_are_refused(tmp_path):
    one, two = outputs(tmp_path, "a", ["x", "y"]), outputs(tmp_path, "b", ["x"])
    with pytest.raises(EvalError, match="has no output for 1 of 2 instructions"):
        similarity_study.study(one, [two])
    with pytest.raises(EvalError, match="Two files have the generator 'a'"):
        similarity_study.study(one, [one, one])
