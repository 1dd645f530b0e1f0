"""Messages of Anthropic's API, and their translation into those of Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from moa_graph.server.protocols.fields import Json, Name, Part, Text, given


class TextBlock(Part):
    type: Literal["text"]
    text: Text


class Base64Source(Part):
    type: Literal["base64"]
    media_type: Annotated[Text, Field(pattern=r"^[a-z]+/[a-zA-Z0-9.+-]+$")]
    data: Text


class UrlSource(Part):
    type: Literal["url"]
    url: Annotated[Text, Field(pattern=r"^https?://")]


class TextSource(Part):
    type: Literal["text"]
    data: Text


class ContentSource(Part):
    type: Literal["content"]
    content: Text | list[TextBlock]


class ImageBlock(Part):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]


class DocumentBlock(Part):
    type: Literal["document"]
    source: Annotated[Base64Source | TextSource | ContentSource, Field(discriminator="type")]
    title: Text | None = None
    context: Text | None = None


class SearchResultBlock(Part):
    type: Literal["search_result"]
    source: Text
    title: Text
    content: list[TextBlock]


ResultBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock, Field(discriminator="type")
]


class ToolResultBlock(Part):
    type: Literal["tool_result"]
    tool_use_id: Text
    content: Text | list[ResultBlock] | None = None
    is_error: bool | None = None


class ToolUseBlock(Part):
    type: Literal["tool_use"]
    id: Text
    name: Name
    input: Json


class ThinkingBlock(Part):
    """Reasoning of an earlier answer, which only the model that wrote it could use."""

    type: Literal["thinking", "redacted_thinking"]


UserBlock = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock,
    Field(discriminator="type"),
]
AssistantBlock = Annotated[TextBlock | ToolUseBlock | ThinkingBlock, Field(discriminator="type")]


class SystemMessage(Part):
    role: Literal["system"]
    content: Text | list[TextBlock]


class UserMessage(Part):
    role: Literal["user"]
    content: Text | Annotated[list[UserBlock], Field(min_length=1)]


class AssistantMessage(Part):
    role: Literal["assistant"]
    content: Text | list[AssistantBlock]


MessageParam = Annotated[
    SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")
]


def text_of(blocks: Sequence[TextBlock]) -> str:
    """Return the text of several blocks."""
    return "\n\n".join(block.text for block in blocks)


def chat_messages(messages: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of Chat Completions for those of Anthropic's API.

    Args:
        messages: Messages of the types of `MessageParam`.
    """
    for message in messages:
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif isinstance(message, SystemMessage):
            yield {"role": "system", "content": text_of(message.content)}
        elif isinstance(message, UserMessage):
            yield from _of_user(message.content)
        else:
            yield _of_assistant(message.content)


def _of_user(blocks: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the tool results as messages of their own, and then the rest."""
    rest = []
    for block in blocks:
        if not isinstance(block, ToolResultBlock):
            rest.append(_part(block))
            continue
        content = block.content or ""
        media: list[dict[str, Any]] = []
        if not isinstance(content, str):
            parts = [_part(inner) for inner in content]
            content = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
            media = [part for part in parts if part["type"] != "text"]
        yield {
            "role": "tool",
            "tool_call_id": block.tool_use_id,
            "content": content,
            **({"status": "error"} if block.is_error else {}),
        }
        rest += media  # tool messages of Chat Completions have text only
    if rest:
        yield {"role": "user", "content": rest}


def _part(block: Any) -> dict[str, Any]:
    match block:
        case ImageBlock(source=source):
            return {"type": "image_url", "image_url": {"url": _address(source)}}
        case DocumentBlock(source=Base64Source() as source):
            file = {"file_data": _address(source), "filename": block.title or "document"}
            return {"type": "file", "file": file}
        case DocumentBlock(source=TextSource(data=text)):
            return {"type": "text", "text": _titled(block, text)}
        case DocumentBlock(source=ContentSource(content=content)):
            text = content if isinstance(content, str) else text_of(content)
            return {"type": "text", "text": _titled(block, text)}
        case SearchResultBlock():
            head = f"{block.title}\n{block.source}"
            return {"type": "text", "text": f"{head}\n\n{text_of(block.content)}"}
    return {"type": "text", "text": block.text}


def _address(source: Base64Source | UrlSource) -> str:
    if isinstance(source, UrlSource):
        return source.url
    return f"data:{source.media_type};base64,{source.data}"


def _titled(block: DocumentBlock, text: str) -> str:
    return "\n\n".join(filter(None, [block.title, block.context, text]))


def _of_assistant(blocks: Sequence[Any]) -> dict[str, Any]:
    text = "\n\n".join(block.text for block in blocks if isinstance(block, TextBlock))
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": json.dumps(block.input)},
        }
        for block in blocks
        if isinstance(block, ToolUseBlock)
    ]
    return given({"role": "assistant", "content": text, "tool_calls": calls or None})
