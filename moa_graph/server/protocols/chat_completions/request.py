"""Requests and responses of OpenAI's Chat Completions API: a subset of it.

https://platform.openai.com/docs/api-reference/chat/create. The other protocols are translated into
these requests. Fields that do not affect the answer are accepted and ignored. Unknown fields are
ignored and named in the response, or rejected with `MOA_STRICT=1`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from openai.types import ErrorObject
from pydantic import BaseModel, Field, model_validator

from moa_graph.server.protocols.fields import (
    Arguments,
    Json,
    Known,
    Name,
    Part,
    Request,
    Text,
    Unsupported,
)
from moa_graph.server.settings import SETTINGS

_INT64 = 2**63

# --- messages ----------------------------------------------------------------------------


class TextPart(Part):
    type: Literal["text"]
    text: Text


class RefusalPart(Part):
    type: Literal["refusal"]
    refusal: Text


class ImageURL(Part):
    url: Annotated[Text, Field(pattern=r"^(https?://|data:)")]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Part):
    type: Literal["image_url"]
    image_url: ImageURL


class AudioPart(Part):
    type: Literal["input_audio"]
    input_audio: Json


class FilePart(Part):
    type: Literal["file"]
    file: Json


UserPart = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class CalledFunction(Part):
    name: Name
    arguments: Arguments


class ToolCall(Part):
    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemMessage(Part):
    role: Literal["system", "developer"]
    content: Text | list[TextPart]
    name: Text | None = None


class UserMessage(Part):
    role: Literal["user"]
    content: Text | list[UserPart]
    name: Text | None = None


class AssistantMessage(Part):
    role: Literal["assistant"]
    content: Text | list[AssistantPart] | None = None
    refusal: Text | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(Part):
    role: Literal["tool"]
    content: Text | list[TextPart]
    tool_call_id: Text
    status: Literal["success", "error"] | None = None
    """As in LangChain; OpenAI's protocol has no such field."""


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


# --- tools and response format -------------------------------------------------------------


class Function(Known):
    name: Name
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Known):
    type: Literal["function"]
    function: Function


class ChosenFunction(Known):
    name: Name


class ToolChoice(Known):
    type: Literal["function"]
    function: ChosenFunction


class JsonSchema(Known):
    name: Name
    description: Text | None = None
    schema_: Json = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Known):
    type: Literal["text"]


class JsonObjectFormat(Known):
    type: Literal["json_object"]


class JsonSchemaFormat(Known):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(Known):
    include_usage: bool = False
    include_obfuscation: bool | None = None


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


# --- the request -----------------------------------------------------------------------------


class ChatCompletionRequest(Request):
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
    audio: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    web_search_options: Unsupported = None

    reasoning_effort: ReasoningEffort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    logit_bias: dict[Text, float] | None = Field(default=None, max_length=1024)
    top_k: int | None = Field(default=None, ge=-1, lt=_INT64)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """These fields are passed to the aggregator's model if it takes them, and left out if not."""

    user: Text | None = None
    """Stored in the metadata of the run, like `metadata`."""
    metadata: dict[Text, Text] | None = Field(default=None, max_length=16)

    prediction: Json | None = None
    store: bool | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    """These fields do not change the answer, and are ignored."""

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


class ModelObject(BaseModel):
    """A model, in the forms of OpenAI's and of Anthropic's API."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: str


class Models(BaseModel):
    """A list of models, in the forms of OpenAI's and of Anthropic's API."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
    has_more: Literal[False] = False
    first_id: str | None
    last_id: str | None


class Error(BaseModel):
    """Error response."""

    error: ErrorObject
