"""Detect from a message's metadata that a provider stopped or withheld an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

_REASON_FIELDS = {
    "finishreason",  # OpenAI, Azure, Mistral, Together, Groq, xAI, DeepSeek, Qwen, Gemini
    "stopreason",  # Anthropic, Bedrock (Converse)
    "nativefinishreason",  # OpenRouter: the reason of the underlying provider
    "donereason",  # Ollama
    "reason",  # OpenAI's Responses API, in `incomplete_details`
    "blockreason",  # Gemini, in `prompt_feedback`
    "completionreason",  # Bedrock (InvokeModel, Titan)
}

_FILTERED = {
    # OpenAI and Azure, "content_filter": https://platform.openai.com/docs/api-reference/chat
    # xAI, DeepSeek, Groq, Together, Qwen and Mistral use OpenAI's protocol.
    "contentfilter",
    # Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    "contentfiltered",
    "guardrailintervened",
    # Anthropic: https://docs.anthropic.com/en/api/handling-stop-reasons
    "refusal",
    # Gemini and Vertex: https://ai.google.dev/api/generate-content#FinishReason
    "safety",
    "recitation",
    "blocklist",
    "prohibitedcontent",
    "spii",
    "imagesafety",
    "imageprohibitedcontent",
    "imagerecitation",
    "modelarmor",
    "jailbreak",
    "language",
    "imageother",
    # Cohere: https://docs.cohere.com/v1/reference/chat
    "errortoxic",
    "toxic",
    # Qwen (DashScope): https://help.aliyun.com/zh/model-studio/error-code
    "datainspectionfailed",
    "contentmoderation",
    "moderation",
    # Zhipu and Tencent
    "sensitive",
    # gateways and self-hosted servers
    "contentpolicyviolation",
    "contentmoderated",
    "safetyfilter",
    "flagged",
    "blocked",
}

_BROKEN_OFF = {
    "error",  # Mistral, Cohere, OpenRouter: the provider failed during the answer
    "errorlimit",  # Cohere
    "insufficientsystemresource",  # DeepSeek
    "networkerror",  # Zhipu
    "malformedfunctioncall",  # Gemini
    "unexpectedtoolcall",
    "toomanytoolcalls",
    "malformedmodeloutput",  # Bedrock
    "malformedtooluse",  # Bedrock
}

_GEMINI_NUMBERS = {3: "SAFETY", 4: "RECITATION", 6: "LANGUAGE", 7: "BLOCKLIST"} | {
    8: "PROHIBITED_CONTENT",
    9: "SPII",
    10: "MALFORMED_FUNCTION_CALL",
    11: "IMAGE_SAFETY",
}
_FLAGS = {
    "isblocked",  # Vertex
    "inputsensitive",  # MiniMax
    "outputsensitive",
    "amazonbedrockguardrailaction",
}
_APART = {"moa", "aggregator", "token_usage", "usage"}  # our own records, and counts
_BLOCKED = {"intervened", "guardrailintervened"}
_UNSPECIFIED = {"", "none", "blockreasonunspecified", "blockedreasonunspecified", "0"}


def filter_reason(metadata: Mapping[str, Any]) -> str | None:
    """Return the provider's reason for stopping the answer by a content filter; None if it did not.

    Args:
        metadata: A message's `response_metadata`, in any provider's format. Case, spaces, hyphens,
            underscores and the class name of an enum value are ignored.
    """
    for field, value, path in _fields(metadata):
        if field in _REASON_FIELDS:
            word = _word(value)
            blocked = field == "blockreason" and word not in _UNSPECIFIED
            if word in _FILTERED or blocked:
                return _shown(value)
        if field in _FLAGS and (value is True or _word(value) in _BLOCKED):
            return field
        # Azure reports for each category whether it was filtered.
        if field == "filtered" and value is True and "contentfilterresults" in path:
            return "content_filter_results"
        if field == "blocked" and value is True and "safetyratings" in path:
            return "safety_ratings"
    return None


def broken_off(metadata: Mapping[str, Any]) -> str | None:
    """Return the provider's reason for failing in the middle of the answer; None if it did not."""
    for field, value, _ in _fields(metadata):
        if field in _REASON_FIELDS and _word(value) in _BROKEN_OFF:
            return _shown(value)
    return None


def finish_reason(metadata: Mapping[str, Any]) -> str | None:
    """Return the provider's finish reason of an answer; None if there is none."""
    for field, value, _ in _fields(metadata):
        if field in _REASON_FIELDS and value is not None and not isinstance(value, Mapping):
            return _shown(value)
    return None


def _fields(
    metadata: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Yield every field with its value and path, at any depth that providers use."""
    for name, value in metadata.items():
        if path == () and name in _APART:
            continue
        field = _field(name) if isinstance(name, str) else _word(name)
        yield field, value, path
        if len(path) > 4:  # noqa: PLR2004 - deeper than any provider's format
            continue
        inner = value if isinstance(value, list | tuple) else [value]
        for entry in inner:
            if isinstance(entry, Mapping):
                yield from _fields(entry, (*path, field))


@lru_cache(maxsize=1024)
def _field(name: str) -> str:
    return _word(name)


def _word(value: Any) -> str:
    # "FinishReason.SAFETY" and FinishReason.SAFETY are written in several ways.
    text = _shown(value).rpartition(".")[2].casefold()
    return "".join(c for c in text if c.isalnum())


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value in _GEMINI_NUMBERS:
        return _GEMINI_NUMBERS[value]
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(value)
