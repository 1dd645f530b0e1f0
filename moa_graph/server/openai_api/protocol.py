"""Request and response types of the OpenAI-compatible endpoint: a subset of Chat Completions.

Fields that do not affect the answer are accepted and ignored. An unsupported or unknown field is
rejected with an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import orjson
from openai.types import ErrorObject, Model
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from moa_graph.server.settings import SETTINGS

_INT64 = 2**63


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _storable(value: Any) -> Any:
    """Reject a value that JSON or a database cannot store: it would break the run or the log."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"it cannot be serialized as JSON: {error}") from None
    if any("\x00" in text for text in _strings(value)):
        raise ValueError("it contains a NUL character")
    return value


def _arguments(text: str) -> str:
    """Return the arguments of a tool call, as JSON; an empty string becomes `{}`."""
    try:
        _storable(json.loads(text or "{}"))
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("it is not valid JSON") from None
    return text or "{}"


Text = Annotated[str, AfterValidator(_storable)]
Json = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class _Part(BaseModel):
    """Type that ignores unknown fields, because clients send back all fields they received."""

    model_config = ConfigDict(extra="ignore")


class _Known(BaseModel):
    """Type that rejects unknown fields, such as misspelled ones."""

    model_config = ConfigDict(extra="forbid")


# --- messages ----------------------------------------------------------------------------


class TextPart(_Part):
    type: Literal["text"]
    text: Text


class RefusalPart(_Part):
    type: Literal["refusal"]
    refusal: Text


class ImageURL(_Part):
    url: Annotated[Text, Field(pattern=r"^(https?://|data:)")]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: ImageURL


class AudioPart(_Part):
    type: Literal["input_audio"]
    input_audio: Json


class FilePart(_Part):
    type: Literal["file"]
    file: Json


UserPart = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class CalledFunction(_Part):
    name: Name
    arguments: Annotated[Text, AfterValidator(_arguments)]


class ToolCall(_Part):
    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemMessage(_Part):
    role: Literal["system", "developer"]
    content: Text | list[TextPart]
    name: Text | None = None


class UserMessage(_Part):
    role: Literal["user"]
    content: Text | list[UserPart]
    name: Text | None = None


class AssistantMessage(_Part):
    role: Literal["assistant"]
    content: Text | list[AssistantPart] | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(_Part):
    role: Literal["tool"]
    content: Text | list[TextPart]
    tool_call_id: Text


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


# --- tools and response format -------------------------------------------------------------


class Function(_Known):
    name: Name
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(_Known):
    type: Literal["function"]
    function: Function


class ChosenFunction(_Known):
    name: Name


class ToolChoice(_Known):
    type: Literal["function"]
    function: ChosenFunction


class JsonSchema(_Known):
    name: Name
    description: Text | None = None
    schema_: Json = Field(alias="schema")
    strict: bool | None = None


class TextFormat(_Known):
    type: Literal["text"]


class JsonObjectFormat(_Known):
    type: Literal["json_object"]


class JsonSchemaFormat(_Known):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(_Known):
    include_usage: bool = False
    include_obfuscation: bool | None = None


# --- the request -----------------------------------------------------------------------------


class ChatCompletionRequest(_Known):
    """Request to a Mixture-of-Agents, as if it were one model.

    `model` is the name or id of a preset or an assistant. Sampling parameters, tools,
    `response_format` and `stop` apply to the aggregator only.
    """

    model: Text = Field(min_length=1)
    messages: list[Message] = Field(min_length=1, max_length=SETTINGS.max_messages)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None

    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None

    n: Literal[1] | None = None
    """Only one answer per request is supported."""
    logprobs: Literal[False] | None = None
    """Not supported, because the synthesis has no probabilities of its own."""
    top_logprobs: Literal[0] | None = None
    modalities: list[Literal["text"]] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None
    """These fields are known, but not supported."""

    user: Text | None = None
    """Stored in the metadata of the run, like `metadata`."""
    metadata: dict[Text, Text] | None = Field(default=None, max_length=16)

    store: bool | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    """These five fields are for OpenAI's own servers and are ignored."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("tools: function names must be unique")
        if isinstance(self.tool_choice, ToolChoice):
            if self.tool_choice.function.name not in names:
                raise ValueError("tool_choice: names a function that is not in tools")
        elif self.tool_choice in ("auto", "required") and not names:
            raise ValueError("tool_choice: requires tools")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: requires stream=true")
        return self


# --- response schemas ------------------------------------------------------------------------


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Error(BaseModel):
    """Error response."""

    error: ErrorObject
