from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_graph.calling.answer_stream import AnswerStream
from moa_graph.calling.reasoning import ReasoningSplitter, split_reasoning

SPLIT = {  # what a model wrote: its answer, and a word that only its reasoning has
    "<think>5? no.</think>4": ("4", "5?"),
    "<think>\n5? no.\n</think>\n\n4": ("4", "5?"),
    "  <think>5? no.</think> it is 4": ("it is 4", "5?"),
    "<THINK>5? no.</Think>4": ("4", "5?"),
    "<thinking>5? no.</thinking>4": ("4", "5?"),
    "<thought>5? no.</thought>4": ("4", "5?"),
    "<reasoning>5? no.</reasoning>4": ("4", "5?"),
    "<antThinking>5? no.</antThinking>4": ("4", "5?"),
    "<seed:think>5? no.</seed:think>4": ("4", "5?"),
    "◁think▷5? no.◁/think▷4": ("4", "5?"),
    "[THINK]5? no.[/THINK]4": ("4", "5?"),
    "<|begin_of_thought|>5? no.<|end_of_thought|>4": ("4", "5?"),
    "<|START_THINKING|>5? no.<|END_THINKING|>4": ("4", "5?"),
    "<|channel|>analysis<|message|>5? no.<|end|><|start|>assistant<|channel|>final<|message|>4": (
        "4",
        "5?",
    ),
    # a closing tag alone: the opening one was part of the prompt
    "5? no.</think>\n4": ("4", "5?"),
    "5? no.</think>4": ("4", "5?"),
    "5? no\n</think>\n\n4": ("4", "5?"),
    "Okay, 5? no, 4 </think>\n\nIt is 4.": ("It is 4.", "5?"),
    "5? no.◁/think▷4": ("4", "5?"),
    # an opening tag that a limit cut
    "<think>5? no": ("", "5?"),
    "<thinking>\n5? no": ("", "5?"),
    "5? no.</think>": ("", "5?"),
    # several, nested, between sentences
    "<think>5? no.</think><think>6? no.</think>4": ("4", "6?"),
    "<think>5?<think>6?</think>7?</think>4": ("4", "7?"),
    "Sure.\n<think>5? no.</think>\nIt is 4.": ("Sure.\n\nIt is 4.", "5?"),
    "<think>5? no.</think>4</think>": ("4", "5?"),
    "<think>they write `</think>` after 5?</think>4": ("4", "5?"),
    "<think>I close with </think> when done. 5?</think>4": ("4", "5?"),
    "<think>\n```python\n5?\n</think>\nIt is 4.": ("It is 4.", "5?"),
    "<think>```py\n5?</think>4": ("4", "5?"),
    "Answer: <think>5? no.</think>4": ("Answer: 4", "5?"),
    "Okay, <think>5? no.</think> It is 4.": ("Okay,  It is 4.", "5?"),
    "It is 4 <think>or 5?</think> 4 it is": ("It is 4  4 it is", "or 5?"),
    "- <think>5? no.</think>\n- 4": ("- \n- 4", "5?"),
    "<longcat_think>5? no.</longcat_think>4": ("4", "5?"),
    "<reflection>5? no.</reflection>4": ("4", "5?"),
    "<|start|>assistant<|channel|>analysis<|message|>5?<|end|><|start|>assistant<|channel|>final"
    "<|message|>4": ("4", "5?"),
}

ANSWERS = [  # no reasoning: returned as they are
    "4",
    "",
    " \n 4 \n",
    "a < b and c > d",
    "<b>4</b> and <thin> and </thing>",
    "Use the `<think>` tag.",
    "It writes `<think>…</think>` before its answer.",
    "```xml\n<think>\nthoughts\n</think>\n```\nThat is the format.",
    "~~~\n</think>\n~~~\nThat is the end.",
    "The <think> tag opens a thought, and </think> closes it.",
    "<think> and </think> are tags.",
    "<think> is a tag that some models write.",
    'Say "<think>" first and "</think>" last.',
    "Write (</think>) at the end.",
    "End your thoughts with </think> and then answer.",
    "Models write <think>…</think> before the answer.",
    "Wrap it like this: <think>your thoughts</think>",
    '{"tag": "<think>", "closing": "</think>"}',
    "A template:\n<think>\nyour thoughts here",
    "<order>\n  <reason>Out of stock</reason>\n</order>",
    "<reason>Out of stock</reason>",
    "<thoughts>I like it.</thoughts>",
    "4, by <think>thinking</think>.",
]


@pytest.mark.parametrize("text", SPLIT)
def test_reasoning_is_taken_out_of_the_text_and_kept_apart(text):
    answer, reasoning = split_reasoning(text)
    expected, thought = SPLIT[text]
    assert answer.strip() == expected
    assert thought in reasoning
    assert thought not in answer


@pytest.mark.parametrize("text", ANSWERS)
def test_a_tag_that_is_only_mentioned_stays(text):
    assert split_reasoning(text) == (text, "")


def test_a_limit_may_cut_reasoning_in_mid_answer():
    text = "It is near 4.\n<think>or 5? Let me"
    assert split_reasoning(text, cut=True) == ("It is near 4.\n", "or 5? Let me")
    assert split_reasoning(text) == (text, "")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("text", [*SPLIT, *ANSWERS])
def test_a_stream_shows_the_answer_however_it_is_cut(text, size):
    splitter = ReasoningSplitter()
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    shown = "".join([*map(splitter.add, chunks), splitter.end()])
    assert splitter.answer == split_reasoning(text)[0]
    if not splitter.retracted:  # a closing tag alone comes when all before it was shown
        assert shown.strip() == splitter.answer.strip()
    held = ReasoningSplitter(hold=True)
    shown = "".join([*map(held.add, chunks), held.end()])
    assert shown.strip() == split_reasoning(text)[0].strip()
    assert not held.retracted


pieces = st.sampled_from(
    ["<think>", "</think>", "`", "\n", "```\n", " ", "a word", ".", "<", "</", "4", "◁think▷", '"']
)


@given(st.lists(pieces, max_size=14), st.integers(1, 7))
def test_cutting_a_text_into_chunks_changes_nothing(parts, size):
    text = "".join(parts)
    splitter = ReasoningSplitter()
    shown = [splitter.add(text[i : i + size]) for i in range(0, len(text), size)]
    shown.append(splitter.end())
    assert splitter.answer == split_reasoning(text)[0]
    if not splitter.retracted:
        assert "".join(shown).strip() == splitter.answer.strip()


@given(st.text(max_size=60))
def test_no_other_text_is_touched(text):
    if not any(c in text for c in "<[◁"):
        assert split_reasoning(text) == (text, "")
        splitter = ReasoningSplitter()
        assert splitter.add(text) + splitter.end() == text


def test_text_without_tags_is_shown_at_once():
    splitter = ReasoningSplitter()
    assert splitter.add("It is ") == "It is "
    assert splitter.add("a <") == "a "
    assert splitter.add("b, as b") + splitter.end() == "<b, as b"


def test_half_a_character_waits_for_its_other_half():
    from langchain_core.messages import AIMessageChunk

    stream = AnswerStream()
    texts = ["fine \ud83d", "\ude00!", "\ud83d"]
    shown = [m.text for t in texts for m in stream.shown(AIMessageChunk(t, id="1"))]
    last = stream.shown(AIMessageChunk("", id="1", chunk_position="last"))
    assert "".join([*shown, *(m.text for m in last)]) == "fine 😀!�"
