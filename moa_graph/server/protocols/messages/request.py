"""Requests of Anthropic's Messages API: a subset of it.

https://docs.anthropic.com/en/api/messages. The names of types are those of Anthropic's SDK.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from moa_graph.server.protocols.chat_completions.request import ChatCompletionRequest
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.fields import (
    Json,
    Known,
    Name,
    Request,
    Text,
    Unsupported,
    given,
)
from moa_graph.server.protocols.messages.content import (
    MessageParam,
    TextBlock,
    chat_messages,
    text_of,
)
from moa_graph.server.protocols.translation import as_chat
from moa_graph.server.settings import SETTINGS


class Tool(Known):
    """A function that the client runs."""

    type: Literal["custom"] | None = None
    name: Name
    description: Text | None = None
    input_schema: Json
    strict: bool | None = None
    cache_control: Json | None = None
    eager_input_streaming: bool | None = None
    """These two fields do not change the answer, and are ignored."""


class ToolChoiceMode(Known):
    """Whether tools are to be called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class ToolChoiceTool(Known):
    """The tool that is to be called."""

    type: Literal["tool"]
    name: Name
    disable_parallel_tool_use: bool | None = None


class JsonOutputFormat(Known):
    """The JSON schema of the answer."""

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Known):
    """The form of the answer, and the effort for it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutputFormat | None = None


class Metadata(Known):
    """Metadata of the run."""

    user_id: Text | None = None


class MessagesRequest(Request):
    """Request to a Mixture-of-Agents, as if it were one model.

    `model` is the name or id of a preset or an assistant. Sampling parameters, tools,
    `output_config` and `stop_sequences` apply to the aggregator only.
    """

    model: Text = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    messages: list[MessageParam] = Field(min_length=1, max_length=SETTINGS.max_messages)
    system: Text | list[TextBlock] | None = None
    stream: bool | None = None

    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**63)
    stop_sequences: list[Text] | None = Field(default=None, max_length=16)

    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Annotated[ToolChoiceMode | ToolChoiceTool, Field(discriminator="type")] | None = (
        None
    )
    output_config: OutputConfig | None = None
    output_format: JsonOutputFormat | None = None
    """The former place of `output_config.format`."""

    container: Unsupported = None
    mcp_servers: Unsupported = None
    compaction: Unsupported = None
    thread: Json | None = None
    """A conversation that the server keeps, which is not supported."""

    metadata: Metadata | None = None
    """Stored in the metadata of the run."""
    service_tier: Text | None = None
    inference_geo: Text | None = None
    cache_control: Json | None = None
    """These fields do not change the answer, and are ignored."""

    @model_validator(mode="before")
    @classmethod
    def _without_thinking(cls, given: Any) -> Any:
        """Drop `thinking` if it is off, as it is here: the assistant configures its models."""
        thinking = given.get("thinking") if isinstance(given, dict) else None
        if isinstance(thinking, dict) and thinking.get("type") == "disabled":
            return {name: value for name, value in given.items() if name != "thinking"}
        return given

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.messages[-1].role == "assistant":
            raise ValueError(
                "messages: the last message must not be of the assistant; this server does not "
                "continue a given answer"
            )
        return self

    def chat(self) -> ChatCompletionRequest:
        """Return the same request to the Chat Completions API.

        Raises:
            ApiError: If it is invalid as a whole.
        """
        if self.thread is not None:
            raise ApiError(400, _NO_THREADS, param="thread", details=_UNSUPPORTED_THREAD)
        system = self.system if isinstance(self.system, str) else text_of(self.system or ())
        messages = [{"role": "system", "content": system}] if system else []
        messages += chat_messages(self.messages)
        config = self.output_config or OutputConfig()
        form = config.format or self.output_format
        choice = self.tool_choice
        request = {
            "model": self.model,
            "messages": messages,
            "stream": self.stream,
            "max_completion_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": self.stop_sequences,
            "reasoning_effort": config.effort,
            "tools": [_function(tool) for tool in self.tools or ()] or None,
            "tool_choice": _choice(choice),
            "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
            "response_format": _format(form) if form else None,
            "user": self.metadata.user_id if self.metadata else None,
        }
        return as_chat(request, "messages")


_NO_THREADS = (
    "thread: this server does not keep conversations; send the whole conversation, without this "
    "field."
)
# Anthropic's tool runners send such a request again without a thread.
_UNSUPPORTED_THREAD = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


class ErrorObject(BaseModel):
    """What is wrong with a request. The SDK's type has not all kinds that the API documents."""

    type: str
    message: str
    details: dict[str, Any] | None = None


class MessagesError(BaseModel):
    """Error response."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str | None


def _function(tool: Tool) -> dict[str, Any]:
    fields = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": given(fields)}


def _choice(choice: ToolChoiceMode | ToolChoiceTool | None) -> Any:
    if isinstance(choice, ToolChoiceTool):
        return {"type": "function", "function": {"name": choice.name}}
    return {"any": "required"}.get(choice.type, choice.type) if choice else None


def _format(form: JsonOutputFormat) -> dict[str, Any]:
    schema = {"name": "answer", "schema": form.schema_, "strict": True}
    return {"type": "json_schema", "json_schema": schema}
