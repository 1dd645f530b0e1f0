from __future__ import annotations

import enum

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from pydantic import BaseModel

from moa_graph.calling.answer import read_answer, was_cut


class FinishReason(enum.Enum):
    SAFETY = 3


FILTERED = {  # by provider, what its messages say
    "OpenAI": {"finish_reason": "content_filter"},
    "Azure": {"finish_reason": "stop", "content_filter_results": {"hate": {"filtered": True}}},
    "OpenAI, Responses API": {
        "status": "incomplete",
        "incomplete_details": {"reason": "content_filter"},
    },
    "Anthropic": {"stop_reason": "refusal"},
    "Gemini, safety": {"finish_reason": "SAFETY"},
    "Gemini, enumeration": {"finish_reason": FinishReason.SAFETY},
    "Gemini, spelled out": {"finish_reason": "FinishReason.PROHIBITED_CONTENT"},
    "Gemini, recitation": {"finish_reason": "RECITATION"},
    "Gemini, blocklist": {"finishReason": "BLOCKLIST"},
    "Gemini, personal data": {"finish_reason": "SPII"},
    "Gemini, picture": {"finish_reason": "IMAGE_SAFETY"},
    "Gemini, prompt": {"prompt_feedback": {"block_reason": "OTHER"}},
    "Vertex, blocked": {"is_blocked": True},
    "Vertex, Model Armor": {"finish_reason": "MODEL_ARMOR"},
    "Bedrock, Converse": {"stopReason": "guardrail_intervened"},
    "Bedrock, filter": {"stopReason": "content_filtered"},
    "Bedrock, InvokeModel": {"amazon-bedrock-guardrailAction": "INTERVENED"},
    "Cohere": {"finish_reason": "ERROR_TOXIC"},
    "Mistral": {"finish_reason": "content-filter"},
    "Together": {"finish_reason": "Content_Filter"},
    "Groq": {"finish_reason": "CONTENT FILTER"},
    "xAI": {"finish_reason": "contentFilter"},
    "DeepSeek": {"finish_reason": "content_filter"},
    "Qwen": {"finish_reason": "data_inspection_failed"},
    "Zhipu": {"finish_reason": "sensitive"},
    "MiniMax": {"finish_reason": "stop", "output_sensitive": True},
    "Gemini, number": {"finish_reason": 3},
    "Gemini, language": {"finish_reason": "LANGUAGE"},
    "Gemini, ratings": {"safety_ratings": [{"category": "HATE", "blocked": True}]},
    "a gateway": {"finish_reason": "content_policy_violation"},
    "OpenRouter": {"finish_reason": "stop", "native_finish_reason": "SAFETY"},
}

NOT_FILTERED = [
    {"finish_reason": "stop"},
    {"finish_reason": "length"},
    {"stop_reason": "end_turn"},
    {"stopReason": "max_tokens"},
    {"finish_reason": "STOP", "safety_ratings": [{"category": "HATE", "blocked": False}]},
    {"finish_reason": "STOP", "prompt_feedback": {"block_reason": 0, "safety_ratings": []}},
    {"finish_reason": "stop", "content_filter_results": {"hate": {"filtered": False}}},
    {"model_name": "safety", "id": "refusal"},
    {"is_blocked": False, "output_sensitive": False},
    {},
]


@pytest.mark.parametrize("provider", FILTERED)
def test_a_content_filter_is_known_by_every_providers_name(provider):
    answer = read_answer(AIMessage("First you take", response_metadata=FILTERED[provider]))
    assert answer.filtered
    assert "content filter" in answer.why_unusable


@pytest.mark.parametrize("metadata", NOT_FILTERED, ids=str)
def test_other_endings_are_no_filter(metadata):
    answer = read_answer(AIMessage("fine", response_metadata=metadata))
    assert (answer.filtered, answer.why_unusable) == (None, None)


@pytest.mark.parametrize(
    "metadata",
    [
        {"finish_reason": "error"},
        {"finish_reason": "insufficient_system_resource"},
        {"finish_reason": "MALFORMED_FUNCTION_CALL"},
    ],
    ids=str,
)
def test_an_answer_that_the_provider_broke_off_is_not_a_proposal(metadata):
    answer = read_answer(AIMessage("First you", response_metadata=metadata))
    assert "in the middle" in answer.why_unusable


REASONING = {  # by provider, a message with reasoning
    "Anthropic": AIMessage([{"type": "thinking", "thinking": "5?", "signature": "xyz"}, "4"]),
    "Anthropic, redacted": AIMessage([{"type": "redacted_thinking", "data": "xyz"}, "4"]),
    "LangChain": AIMessage([{"type": "reasoning", "reasoning": "5?"}, {"type": "text", "text": "4"}]),
    "OpenAI, Responses API": AIMessage(
        [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "5?"}]},
            {"type": "text", "text": "4"},
        ]
    ),
    "Bedrock": AIMessage(
        [
            {"type": "reasoning_content", "reasoning_content": {"text": "5?", "signature": "xyz"}},
            {"type": "text", "text": "4"},
        ]
    ),
    "Mistral": AIMessage(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "5?"}]}, "4"]
    ),
    "DeepSeek": AIMessage("4", additional_kwargs={"reasoning_content": "5?"}),
    "OpenRouter": AIMessage("4", additional_kwargs={"reasoning": "5?"}),
    "OpenRouter, details": AIMessage(
        "4", additional_kwargs={"reasoning_details": [{"type": "reasoning.text", "text": "5?"}]}
    ),
    "Gemini": AIMessage([{"type": "text", "text": "5?", "thought": True}, "4"]),
    "in the text": AIMessage("<think>5?</think>4"),
    "in a block": AIMessage([{"type": "text", "text": "<think>5?</think>4"}]),
    "over blocks": AIMessage([{"type": "text", "text": "<think>5?"}, {"type": "text", "text": "</think>4"}]),
}  # fmt: skip


@pytest.mark.parametrize("provider", REASONING)
def test_reasoning_in_every_form_is_kept_apart(provider):
    answer = read_answer(REASONING[provider])
    assert answer.text == "4"
    assert answer.reasoning == ("" if "redacted" in provider else "5?")
    assert "xyz" not in answer.reasoning


def test_reasoning_from_the_text_stands_where_langchain_looks_for_it():
    message = read_answer(AIMessage("<think>5?</think>4")).message
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]


def test_nothing_but_reasoning_is_an_empty_answer():
    for message in (
        AIMessage("<think>5? no"),
        AIMessage("5? no.</think>"),
        AIMessage([{"type": "thinking", "thinking": "5?"}]),
        AIMessage("", additional_kwargs={"reasoning_content": "5?"}),
        AIMessage([{"type": "text", "text": "5?", "thought": True}]),
    ):
        answer = read_answer(message)
        assert not answer.says_something
        assert "only reasoning" in answer.why_unusable


@pytest.mark.parametrize(
    "kind", ["web_search_call", "reasoning", "non_standard", "server_tool_use"]
)
def test_a_block_that_shows_nothing_is_no_answer(kind):
    assert not read_answer(AIMessage([{"type": kind, "encrypted_content": "xyz"}])).says_something
    picture = AIMessage([{"type": kind}, {"type": "image", "url": "http://x/y.png"}])
    assert read_answer(picture).says_something


class City(BaseModel):
    name: str


OUTPUTS = [
    (AIMessage("a"), "a"),
    (AIMessageChunk("a"), "a"),
    (ToolMessage("a", tool_call_id="1"), "a"),
    ("a", "a"),
    ({"messages": [AIMessage("b"), AIMessage("a")]}, "a"),
    (City(name="a"), '{"name":"a"}'),
    ({"name": "a"}, '{"name": "a"}'),
    ({"raw": AIMessage("x"), "parsed": City(name="a"), "parsing_error": None}, '{"name":"a"}'),
    ({"raw": AIMessage("a"), "parsed": None, "parsing_error": ValueError()}, "a"),
]


@pytest.mark.parametrize(("output", "text"), OUTPUTS)
def test_every_form_of_output_is_read(output, text):
    assert read_answer(output).text == text


@pytest.mark.parametrize("output", [None, 3, object()])
def test_what_has_no_message_is_refused(output):
    with pytest.raises(TypeError, match="neither a message"):
        read_answer(output)


SURROGATES = [
    ("cut in an emoji \ud83d", "cut in an emoji �"),
    ("\ude00 the other half", "� the other half"),
    ("both halves \ud83d\ude00", "both halves 😀"),
    ("in the wrong order \ude00\ud83d", "in the wrong order ��"),
    ("fine 😀", "fine 😀"),
]


@pytest.mark.parametrize(("text", "repaired"), SURROGATES)
def test_text_that_cannot_be_utf8_is_repaired_wherever_it_stands(text, repaired):
    message = AIMessage(
        [{"type": "text", "text": text}],
        additional_kwargs={"refusal": text, text: 1},
        tool_calls=[{"name": "f", "args": {"x": [text]}, "id": "1"}],
    )
    read = read_answer(message).message
    assert read.text == read_answer(text).text == repaired
    assert read.tool_calls[0]["args"]["x"] == [repaired]
    assert read.additional_kwargs == {"refusal": repaired, repaired: 1}
    read.model_dump_json().encode()


def test_a_sound_message_stays_the_same_object():
    message = AIMessage("fine", additional_kwargs={"a": [{"b": "c"}]})
    assert read_answer(message).message is message


@pytest.mark.parametrize(
    ("metadata", "cut"),
    [
        ({"finish_reason": "length"}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"finish_reason": "MAX_TOKENS"}, True),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, True),
        ({"finish_reason": "stop"}, False),
        ({}, None),
    ],
)
def test_a_limit_of_tokens_is_known_by_every_providers_name(metadata, cut):
    assert was_cut(metadata) is cut
