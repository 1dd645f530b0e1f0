"""What of a conversation one model is given: others' content in a form that it understands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable

from moa_graph.calling.reasoning import split_reasoning
from moa_graph.calling.text import repaired
from moa_graph.models import brings_prompt, chat_models_in
from moa_graph.prompts import extend_human_message, extend_system_message

Place: TypeAlias = Literal["system", "human"]
"""Where instructions and references stand: in the system message, or behind the question."""

_MEDIA = {"image", "image_url", "audio", "input_audio", "video", "file"}
_OUR_RECORDS = ("aggregator", "moa")  # in `response_metadata`, of a graph's answers
_PROVIDER = "model_provider"  # where LangChain's messages say who wrote them


def place_for(model: Runnable[Any, Any]) -> Place:
    """Where a model is given instructions: a system message of its own must stay the only one."""
    return "human" if brings_prompt(model) else "system"


def instructed(messages: Sequence[AnyMessage], text: str, place: Place) -> list[AnyMessage]:
    """The conversation with an instruction in it."""
    extend = extend_human_message if place == "human" else extend_system_message
    return extend(messages, text)


def conversation_for(
    model: Runnable[Any, Any], messages: Sequence[AnyMessage], *, own: bool = False
) -> list[AnyMessage]:
    """The conversation as a model can take it.

    Args:
        model: Who reads it.
        messages: The conversation.
        own: Whether the answers in it may be the model's own, which it needs as they are: with
            its server tools, signatures and encrypted reasoning.
    """
    providers = {_provider(chat_model) for chat_model in chat_models_in(model)}
    return [
        repaired(m if not isinstance(m, AIMessage) or _is_own(m, providers, own=own) else plain(m))
        for m in messages
    ]


def _is_own(message: AIMessage, providers: set[str | None], *, own: bool) -> bool:
    if not own:
        return False
    author = message.response_metadata.get(_PROVIDER)
    if author is None or not providers or "moa" in providers:
        return any(record in message.response_metadata for record in _OUR_RECORDS)
    return providers == {author}


def _provider(chat_model: Any) -> str | None:
    provider: str | None = chat_model._get_ls_params().get("ls_provider")  # noqa: SLF001
    return provider


def plain(message: AIMessage) -> AIMessage:
    """An answer without what only its own provider understands: text, pictures and tool calls.

    Server tools and their results, reasoning in any form, executable code, signatures and
    citations are left out. The text is that of the message.
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
    text, _ = split_reasoning(str(message.text))
    blocks = message.content if isinstance(message.content, list) else []
    media = [b for b in blocks if isinstance(b, dict) and b.get("type") in _MEDIA]
    return text, media


def _nothing_said(message: AIMessage) -> str:
    blocks = message.content if isinstance(message.content, list) else []
    names = [str(b.get("name") or b.get("type")) for b in blocks if isinstance(b, dict)]
    used = ", ".join(dict.fromkeys(name for name in names if name != "text"))
    return f"[used: {used}]" if used else "…"
