from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_graph.evals.parsing import arithmetic, final_answer, number_in


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"reasoning": "x", "answer": "18"}', "18"),
        ('Here:\n```json\n{\n "reasoning": "a {b}",\n "answer": 5\n}\n```', "5"),
        ('{"reasoning": "a "quoted" word", "answer": "12"}', "12"),
        ('{"reasoning": "x", "answer": 1,200}', "1"),
        ("answer: 7", "7"),
        ("nothing", None),
        ("", None),
        ('{"answer": ' + "3" * 5000 + "}", "3" * 5000 + "}"),
        ('{"answer": "it\'s {"}', "it's {"),
        ('{"reasoning": "}", "answer": "a\\\\nb"}', "a\\\\nb"),
        ('{"a": {"b": 1}, "answer": "3"} {"answer": "4"}', "3"),
    ],
)
def test_final_answer_of_a_reply(reply, answer):
    assert final_answer(reply) == answer


def test_boxed_answers_count_for_llama_alone():
    reply = "So it is $\\boxed{36}$"
    assert final_answer(reply, "Meta-Llama-3.1-8B-Instruct") == "36"
    assert final_answer(reply, "other") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$1,200", 1200),
        ("3/4", 0.75),
        ("(1 + 2) / 4", 0.75),
        ("-5 apples", -5),
        ("1/0", 1),
        ("9**9**9/1", 9),
        ("None", None),
        ("__import__('os').system('touch x')/1", 1),
        ("2.50", 2.5),
    ],
)
def test_number_of_an_answer(text, number):
    assert number_in(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "x",
        "[1]",
        "'a'*9",
        "1 if 1 else 2",
        "lambda: 1",
        "9**99999",
        "(" * 999,
        "True",
        "~3/4",
        "not 1/2",
    ],
)
def test_arithmetic_works_out_numbers_and_runs_nothing(text):
    assert arithmetic(text) is None


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(st.text(max_size=60))
def test_no_text_makes_the_parsers_fail(text):
    final_answer(text)
    number_in(text)
    arithmetic(text)
