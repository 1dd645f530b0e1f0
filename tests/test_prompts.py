from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from moa_graph.prompts import (
    AGGREGATE_AND_SYNTHESIZE,
    check_conversation,
    extend_system_message,
    format_references,
    inject_references,
)

TABLE_1 = """\
You have been provided with a set of responses from various open-source models to the latest \
user query. Your task is to synthesize these responses into a single, high-quality response. It \
is crucial to critically evaluate the information provided in these responses, recognizing that \
some of it may be biased or incorrect. Your response should not simply replicate the given \
answers but should offer a refined, accurate, and comprehensive reply to the instruction. Ensure \
your response is well-structured, coherent, and adheres to the highest standards of accuracy and \
reliability.

Responses from models:"""


def test_prompt_is_the_papers_word_for_word():
    assert AGGREGATE_AND_SYNTHESIZE == TABLE_1


def test_references_are_numbered_lines_after_the_prompt():
    assert format_references(["alpha", "beta"]) == TABLE_1 + "\n1. alpha\n2. beta"


@given(st.lists(st.text(), min_size=1), st.text())
def test_references_enter_as_they_are_whatever_they_contain(references, question):
    system, human = inject_references([HumanMessage(question)], references)
    expected = "".join(f"\n{i}. {text}" for i, text in enumerate(references, 1))
    assert system.content == TABLE_1 + expected
    assert human.content == question


def test_an_existing_system_message_is_extended_after_a_blank_line():
    conversation = [SystemMessage("Be brief.", id="s"), HumanMessage("hi")]
    system, human = inject_references(conversation, ["a"], "Use these:")
    assert (system.content, system.id) == ("Be brief.\n\nUse these:\n1. a", "s")
    assert human is conversation[1]
    assert conversation[0].content == "Be brief."


def test_a_system_message_of_blocks_gets_one_more_block():
    conversation = [SystemMessage([{"type": "text", "text": "Be brief."}]), HumanMessage("hi")]
    assert extend_system_message(conversation, "More.")[0].text == "Be brief.\n\nMore."


def test_without_references_the_conversation_stays_as_it_is():
    conversation = [HumanMessage("hi")]
    assert inject_references(conversation, []) == conversation


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "empty"),
        ([SystemMessage("x"), AIMessage("y")], "no human message"),
        ([HumanMessage("  \n")], "blank"),
        ([HumanMessage([])], "blank"),
    ],
)
def test_a_conversation_without_a_question_is_refused(messages, says):
    with pytest.raises(ValueError, match=says):
        check_conversation(messages)


def test_a_picture_is_a_question():
    check_conversation([HumanMessage([{"type": "image", "url": "https://example.com/a.png"}])])
