"""Input items of OpenAI's Responses API, and their translation into messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.fields import Arguments, Json, Name, Part, Text, given


class InputText(Part):
    type: Literal["input_text", "output_text", "text"]
    text: Text


class InputImage(Part):
    type: Literal["input_image"]
    image_url: Annotated[Text, Field(pattern=r"^(https?://|data:)")]
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputFile(Part):
    type: Literal["input_file"]
    file_data: Annotated[Text, Field(pattern=r"^data:")]
    filename: Text | None = None


class InputAudio(Part):
    type: Literal["input_audio"]
    input_audio: Json


class Refusal(Part):
    type: Literal["refusal"]
    refusal: Text


UserContent = Annotated[
    InputText | InputImage | InputFile | InputAudio, Field(discriminator="type")
]
AssistantContent = Annotated[InputText | Refusal, Field(discriminator="type")]
OutputContent = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]


class UserMessage(Part):
    type: Literal["message"] | None = "message"
    role: Literal["user"]
    content: Text | list[UserContent]


class AssistantMessage(Part):
    type: Literal["message"] | None = "message"
    role: Literal["assistant"]
    content: Text | list[AssistantContent]


class SystemMessage(Part):
    type: Literal["message"] | None = "message"
    role: Literal["system", "developer"]
    content: Text | list[InputText]


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]


class FunctionCall(Part):
    type: Literal["function_call"]
    call_id: Text
    name: Name
    arguments: Arguments


class FunctionCallOutput(Part):
    type: Literal["function_call_output"]
    call_id: Text
    output: Text | list[OutputContent]


class Reasoning(Part):
    """Reasoning of an earlier answer, which only the model that wrote it could use."""

    type: Literal["reasoning"]


class ItemReference(Part):
    """An item of a stored response. The type may be left out."""

    type: Literal["item_reference"] = "item_reference"
    id: Text


def _kind(item: Any) -> Any:
    fields = item if isinstance(item, Mapping) else getattr(item, "__dict__", {})
    if (kind := fields.get("type")) is not None:
        return kind
    return "message" if "role" in fields or "id" not in fields else "item_reference"


InputItem = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind),
]


def chat_messages(
    items: Sequence[Any], referred: Mapping[str, Sequence[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Yield the messages of Chat Completions for input items.

    Args:
        items: Items of the types of `InputItem`.
        referred: Messages for the ids of item references.

    Raises:
        ApiError: If a reference is to an unknown item.
    """
    for item in items:
        yield from _messages_of(item, referred)


def _messages_of(
    item: Any, referred: Mapping[str, Sequence[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    match item:
        case UserMessage() | AssistantMessage() | SystemMessage():
            content = item.content
            parts = content if isinstance(content, str) else [*map(_part, content)]
            yield {"role": item.role, "content": parts}
        case FunctionCall():
            yield {
                "role": "assistant",
                "tool_calls": [call_of(item.call_id, item.name, item.arguments)],
            }
        case FunctionCallOutput():
            yield from _of_output(item)
        case ItemReference():
            if item.id not in referred:
                raise ApiError(
                    404,
                    f"There is no stored item {item.id!r}. Send the item itself instead of its id; "
                    "with store=false, no item is stored.",
                    "not_found",
                    param="input",
                )
            yield from referred[item.id]


def call_of(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    """Return a tool call of Chat Completions."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _of_output(item: FunctionCallOutput) -> Iterator[dict[str, Any]]:
    """Yield a tool message, which has text only, and a user message with the rest."""
    parts = [] if isinstance(item.output, str) else [*map(_part, item.output)]
    text = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
    content = item.output if isinstance(item.output, str) else text
    yield {"role": "tool", "tool_call_id": item.call_id, "content": content}
    if rest := [part for part in parts if part["type"] != "text"]:
        yield {"role": "user", "content": rest}


def _part(part: Any) -> dict[str, Any]:
    match part:
        case InputImage():
            detail = None if part.detail == "original" else part.detail
            image = given({"url": part.image_url, "detail": detail})
            return {"type": "image_url", "image_url": image}
        case InputFile():
            file = {"file_data": part.file_data, "filename": part.filename or "file"}
            return {"type": "file", "file": file}
        case InputAudio():
            return {"type": "input_audio", "input_audio": part.input_audio}
        case Refusal():
            return {"type": "refusal", "refusal": part.refusal}
    return {"type": "text", "text": part.text}
