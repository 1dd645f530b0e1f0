from __future__ import annotations

import pytest

from moa_graph import create_moa
from moa_graph.strategies import Vote
from moa_graph.strategies.numerals import last_number
from moa_graph.strategies.similarity import normalize

NUMBERS = {  # a text: the number that it ends in, None where that is not clear
    "12,5": 12.5,
    "1.234,5": 1234.5,
    "1,234.5": 1234.5,
    "1 234": 1234,
    "1 234,5": 1234.5,
    "1\u202f234\u202f567": 1234567,
    "1'234.5": 1234.5,
    "12,34,567": 1234567,
    "1,234,567": 1234567,
    "½": 0.5,
    "1½": 1.5,
    "1 1/2": 1.5,
    "3/4": 0.75,
    "1e3": 1000,
    "1.5e-3": 0.0015,
    "1.5 × 10^3": 1500,
    "50 %": 0.5,
    "50%": 0.5,
    "12,5 %": 0.125,
    "25 percent": 0.25,
    "5 ‰": 0.005,
    "−3": -3,
    "１２": 12,
    ".5": 0.5,
    "0.125": 0.125,
    "0,125": 0.125,
    "2 + 3 = 5.": 5,
    "So it costs $1,200.": 1200,
    "The total is 1,234.": 1234,
    "It is 1.234.": 1.234,
    "#### 18": 18,
    "1_000": 1000,
    r"$\frac{3}{4}$": 0.75,
    "2 million": 2e6,
    "1.5k": 1500,
    "$1.5M": 1.5e6,
    "5 m": 5,
    "5m": 5,
    "–5": -5,
    "pages 5–7": 7,
    "50 pct": 0.5,
    "3 or 4": 4,
    "Die Antwort ist 1.234,5.": 1234.5,
    "Zuerst 3,5, dann 1.234.": 1234,
    # what a separator means is not clear
    "Die Antwort ist 1.234.": None,
    "La réponse est 1,234.": None,
    "1,5 or 1.5, so 1,234": None,
    "1,2,3": None,
    "1,234": None,
    "1.234": None,
    "1/2/2024": None,
    "1e400": None,
    "24.12.2024": None,
    "100 200": None,
    # not numbers
    "12:30": None,
    "10^5": None,
    "3/0": None,
    "none": None,
}


@pytest.mark.parametrize("text", NUMBERS)
def test_the_last_number_is_read_by_the_texts_own_convention(text):
    assert last_number(text) == (pytest.approx(NUMBERS[text]) if NUMBERS[text] else NUMBERS[text])


SAME = [
    ["12,5", "12.5", "25/2", "12½", "1250 %", "**12.50**", "The answer is 12,5."],
    ["1.234,5", "1,234.5", "1 234.5", "1234.5", "$1,234.50"],
    ["0.5", "½", "1/2", "50%", "5e-1", ".5"],
    ["1000", "1e3", "1k", "1 000", "1000.0"],
]


@pytest.mark.parametrize("texts", SAME, ids=lambda texts: texts[0])
def test_one_number_in_several_spellings_is_one_answer(texts):
    assert len({normalize(text) for text in texts}) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["7", "007"],
        ["1.2.3", "123"],
        ["3", "3/0"],
        ["12:30", "1230"],
        ["50", "50%"],
        ["1,000", "1000"],
        ["1.000", "1"],
    ],
)
def test_other_answers_stay_apart(texts):
    assert len({normalize(text) for text in texts}) == len(texts)


async def test_a_vote_counts_numbers_and_leaves_out_what_is_not_clear(chat, server):
    answers = {"a": "1.234,5", "b": "1234.5", "c": "7", "d": "Die Antwort ist 1.234."}
    server.answers.update(answers)
    moa = create_moa([chat(name) for name in answers], Vote(parse=last_number))
    state = await moa.ainvoke({"messages": "How much?"})
    assert state["messages"][-1].text == "1.234,5"
    (decision,) = state["decisions"]
    assert decision["kept"] == ["a", "b"]
    assert decision["left_out"]["d"] == "no answer in it"
