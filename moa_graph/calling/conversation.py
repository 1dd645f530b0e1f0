"""Adapt a conversation to one model: convert other models' content to a form that it accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable

from moa_graph.calling.reasoning import split_reasoning
from moa_graph.models import brings_prompt, chat_models_in, has_tools, provider_of
from moa_graph.models.text import is_thought, repaired
from moa_graph.prompts import Place

MEDIA = {"image", "image_url", "audio", "input_audio", "video", "file"}
_UNDERSTOOD = {"text", "text-plain", "refusal", *MEDIA}
_OF_PROVIDERS = {  # block types in questions and tool results -> provider that accepts them
    "document": "anthropic",
    "search_result": "anthropic",
    "tool_reference": "anthropic",
    "container_upload": "anthropic",
    "media": "google_genai",
    "cachePoint": "bedrock",
    "guard_content": "bedrock",
}
_WRITTEN = ("text", "title", "source", "url", "data")
_ALIASES = {
    "amazon_bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "mistralai": "mistral",
    "google_vertexai": "google_genai",
    "google_gla": "google_genai",
    "azure": "openai",
    "azure_openai": "openai",
}
_OUR_RECORDS = ("aggregator", "moa")  # keys in `response_metadata` of a graph's answer
_PROVIDER = "model_provider"  # key of the provider in LangChain's `response_metadata`


def place_for(model: Runnable[Any, Any]) -> Place:
    """Return where to put instructions: a model's own system message must be the only one."""
    return "human" if brings_prompt(model) else "system"


def place_for_references(model: Runnable[Any, Any], messages: Sequence[AnyMessage]) -> Place:
    """Return where to put references by default.

    A model that has tools, or has just used one, gets them after the question. The text before
    them then stays the same from call to call, so that the provider can cache the prompt.
    """
    acted = next((m for m in reversed(messages) if isinstance(m, HumanMessage | ToolMessage)), None)
    if brings_prompt(model) or has_tools(model) or isinstance(acted, ToolMessage):
        return "human"
    return "system"


def conversation_for(
    model: Runnable[Any, Any], messages: Sequence[AnyMessage], *, own: bool = False
) -> list[AnyMessage]:
    """Convert a conversation to messages that a model accepts.

    Args:
        model: The model that reads the conversation.
        messages: The conversation.
        own: Whether the answers in it may be the model's own. These are not changed, because the
            model needs their server tools, signatures and encrypted reasoning.
    """
    providers: list[str] = []
    if any(isinstance(m, AIMessage) or not isinstance(m.content, str) for m in messages):
        providers = [_alias(str(provider_of(chat_model))) for chat_model in chat_models_in(model)]
    return [repaired(_readable(message, providers, own=own)) for message in messages]


def _readable(message: AnyMessage, providers: Sequence[str], *, own: bool) -> AnyMessage:
    if isinstance(message, AIMessage):
        return message if own and _is_own(message, providers) else plain(message)
    if not providers or isinstance(message.content, str):
        return message
    blocks = [_block_for(block, providers) for block in message.content]
    if all(new is old for new, old in zip(blocks, message.content, strict=True)):
        return message
    return message.model_copy(update={"content": blocks})


def _is_own(message: AIMessage, providers: Sequence[str]) -> bool:
    author = message.response_metadata.get(_PROVIDER)
    ours = any(record in message.response_metadata for record in _OUR_RECORDS)
    if author is None or not providers or "moa" in providers:
        return ours
    # The first of several providers is asked. A fallback cannot read another provider's answer.
    return _alias(author) == providers[0] or (ours and len(set(providers)) == 1)


def _alias(provider: str) -> str:
    """Return one name for a provider that has several names in LangChain."""
    return _ALIASES.get(provider, provider)


def _block_for(block: Any, providers: Sequence[str]) -> Any:
    """Convert a block of a question or tool result to text if the providers do not accept it."""
    if not isinstance(block, dict):
        return block
    kind = block.get("type")
    if kind in _UNDERSTOOD:
        return (
            {k: v for k, v in block.items() if k != "cache_control"}
            if ("cache_control" in block and set(providers) != {"anthropic"})
            else block
        )
    if set(providers) == {_OF_PROVIDERS.get(str(kind))}:
        return block
    text = "\n".join(texts_in(block))
    return {"type": "text", "text": text or f"[{kind}]"}


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a block of any type, such as its text, title and URL."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _WRITTEN and isinstance(inner, str):
                yield inner
            elif isinstance(inner, dict | list):
                yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def plain(message: AIMessage) -> AIMessage:
    """Remove provider-specific content from an answer; keep text, media and tool calls.

    Server tools and their results, reasoning in any form, executable code, signatures and
    citations are left out.
    """
    text, media = _content(message)
    if not text.strip() and not media and not message.tool_calls:
        text = _nothing_said(message)
    content: Any = [*([{"type": "text", "text": text}] if text else []), *media] if media else text
    same = content == message.content and not message.additional_kwargs
    if same and _PROVIDER not in message.response_metadata:
        return message
    return AIMessage(
        content,
        id=message.id,
        name=message.name,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
    )


def _content(message: AIMessage) -> tuple[str, list[dict[str, Any]]]:
    blocks = message.content if isinstance(message.content, list) else []
    if any(map(is_thought, blocks)):
        blocks = [block for block in blocks if not is_thought(block)]
        message = message.model_copy(update={"content": blocks})
    text, _ = split_reasoning(str(message.text))
    media = [b for b in blocks if isinstance(b, dict) and b.get("type") in MEDIA]
    return text, media


def _nothing_said(message: AIMessage) -> str:
    blocks = message.content if isinstance(message.content, list) else []
    names = [str(b.get("name") or b.get("type")) for b in blocks if isinstance(b, dict)]
    used = ", ".join(dict.fromkeys(name for name in names if name != "text"))
    return f"[used: {used}]" if used else "…"
