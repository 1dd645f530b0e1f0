"""Requests of OpenAI's Responses API: a subset of it.

https://platform.openai.com/docs/api-reference/responses/create. Conversations and prompts that are
kept on OpenAI's servers, background responses and OpenAI's own tools are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moa_graph.server.protocols.chat_completions.request import (
    ChatCompletionRequest,
    JsonObjectFormat,
    ReasoningEffort,
    TextFormat,
)
from moa_graph.server.protocols.fields import Json, Known, Name, Part, Request, Text, Unsupported
from moa_graph.server.protocols.responses.items import InputItem, UserMessage, chat_messages
from moa_graph.server.protocols.translation import as_chat
from moa_graph.server.settings import SETTINGS


class Function(Known):
    """A function that the client runs."""

    type: Literal["function"]
    name: Name
    description: Text | None = None
    parameters: Json | None = None
    strict: bool | None = None


class ChosenFunction(Known):
    """The function that is to be called."""

    type: Literal["function"]
    name: Name


class AllowedTools(Known):
    """The functions that may be called, of those in `tools`."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ChosenFunction]


class JsonSchemaFormat(Known):
    """An object of a JSON schema."""

    type: Literal["json_schema"]
    name: Name
    schema_: Json = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = None


class TextConfig(Known):
    """The form of the answer."""

    format: (
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
        | None
    ) = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Part):
    """How much the model reasons. Summaries of the reasoning are not supported, and ignored."""

    effort: ReasoningEffort | None = None


class StreamOptions(Known):
    """Options of the stream."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Request):
    """Request to a Mixture-of-Agents, as if it were one model.

    `model` is the name or id of a preset or an assistant. Sampling parameters, tools and `text`
    apply to the aggregator only.
    """

    model: Text = Field(min_length=1)
    input: Text | Annotated[list[InputItem], Field(min_length=1, max_length=SETTINGS.max_messages)]
    instructions: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    store: bool | None = None
    """Whether the response is kept, so that later ones can refer to it; as with OpenAI, it is
    unless this is false."""
    previous_response_id: Text | None = None

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    reasoning: Reasoning | None = None
    text: TextConfig | None = None

    tools: list[Function] | None = Field(default=None, max_length=128)
    tool_choice: (
        Literal["none", "auto", "required"]
        | Annotated[ChosenFunction | AllowedTools, Field(discriminator="type")]
        | None
    ) = None
    parallel_tool_calls: bool | None = None

    background: Literal[False] | None = None
    conversation: Unsupported = None
    prompt: Unsupported = None
    top_logprobs: Literal[0] | None = None

    user: Text | None = None
    """Stored in the metadata of the run, like `metadata`."""
    metadata: dict[Text, Text] | None = Field(default=None, max_length=16)

    include: list[Text] | None = None
    max_tool_calls: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    """These fields do not change the answer, and are ignored."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = {tool.name for tool in self.tools or ()}
        choice = self.tool_choice
        if isinstance(choice, AllowedTools):
            asked = {tool.name for tool in choice.tools}
        else:
            asked = {choice.name} if isinstance(choice, ChosenFunction) else set()
        if unknown := sorted(asked - names):
            raise ValueError(f"tool_choice: names {unknown[0]!r}, which is not in tools")
        return self

    @property
    def is_stored(self) -> bool:
        """Whether the response is kept."""
        return self.store is not False

    @property
    def items(self) -> list[Any]:
        """The input as items."""
        if isinstance(self.input, str):
            return [UserMessage(role="user", content=self.input)]
        return self.input

    def chat(
        self,
        before: Sequence[dict[str, Any]] = (),
        referred: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    ) -> ChatCompletionRequest:
        """Return the same request to the Chat Completions API.

        Args:
            before: Messages of the previous response, in LangChain's or OpenAI's form.
            referred: Messages for the ids of item references.

        Raises:
            ApiError: If it is invalid as a whole.
        """
        instructions = [{"role": "system", "content": self.instructions}]
        config, choice = self.text or TextConfig(), self.tool_choice
        tools = self.tools or []
        if isinstance(choice, AllowedTools):
            allowed = {tool.name for tool in choice.tools}
            tools = [tool for tool in tools if tool.name in allowed]
        request = {
            "model": self.model,
            "messages": [
                *(instructions if self.instructions else ()),
                *before,
                *chat_messages(self.items, referred or {}),
            ],
            "stream": self.stream,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "verbosity": config.verbosity,
            "tools": [_function(tool) for tool in tools] or None,
            "tool_choice": _choice(choice) if tools or choice == "required" else None,
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": _format(config.format) if config.format else None,
            "user": self.user,
            "metadata": self.metadata,
        }
        return as_chat(request, "input")


def _function(tool: Function) -> dict[str, Any]:
    fields = tool.model_dump(exclude_none=True, exclude={"type"})
    return {"type": "function", "function": fields}


def _choice(choice: Any) -> Any:
    if isinstance(choice, ChosenFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode if isinstance(choice, AllowedTools) else choice


def _format(form: TextFormat | JsonObjectFormat | JsonSchemaFormat) -> dict[str, Any]:
    fields = form.model_dump(exclude_none=True, by_alias=True)
    if isinstance(form, JsonSchemaFormat):
        kind = fields.pop("type")
        return {"type": kind, "json_schema": fields}
    return fields
