"""Translate a chat completion request into the input and the context of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import convert_to_messages
from pydantic import ValidationError

from moa_graph.server.protocols.chat_completions.request import (
    ChatCompletionRequest,
    TextFormat,
    ToolChoice,
)
from moa_graph.server.protocols.errors import ApiError, wrong_request
from moa_graph.server.protocols.fields import given
from moa_graph.server.protocols.ordering import check_pairs, ordered

_PASSED = (
    "top_p", "frequency_penalty", "presence_penalty", "seed", "reasoning_effort", "verbosity",
    "logit_bias", "top_k", "min_p", "repetition_penalty",
)  # fmt: skip


def as_chat(request: Mapping[str, Any], field: str) -> ChatCompletionRequest:
    """Return a request to another protocol as one to the Chat Completions API.

    Args:
        request: Fields of the request; None means not set.
        field: Field of the other protocol that has the messages.

    Raises:
        ApiError: If it is invalid as a whole, or a tool result has no call.
    """
    messages = ordered(request["messages"])
    check_pairs(messages, field)
    try:
        return ChatCompletionRequest.model_validate(given({**request, "messages": messages}))
    except ValidationError as error:
        raise wrong_request(error, field) from error


def input_of(asked: ChatCompletionRequest) -> dict[str, Any]:
    """Return the input of the graph.

    Raises:
        ApiError: If the messages are not a valid conversation.
    """
    # OpenAI's tool-call messages may omit the content; LangChain requires an empty string.
    messages = [
        {"content": "", **message.model_dump(exclude_none=True)} for message in asked.messages
    ]
    for message in messages:  # LangChain has no field for it
        message["content"] = message["content"] or message.pop("refusal", "")
    try:
        convert_to_messages(messages)
    except ValidationError as error:
        raise ApiError(400, f"messages: {error.errors()[0]['msg']}", param="messages") from error
    except Exception as error:
        said = str(error).splitlines()[0]
        raise ApiError(400, f"messages: {said}", param="messages") from error
    return {"messages": messages}


def context_of(asked: ChatCompletionRequest) -> dict[str, Any]:
    """Return the settings of the run. All of them apply to the aggregator."""
    choice: str | None = None
    if isinstance(asked.tool_choice, ToolChoice):
        choice = asked.tool_choice.function.name
    elif asked.tool_choice is not None:
        choice = {"required": "any"}.get(asked.tool_choice, asked.tool_choice)  # LangChain's term
    form = asked.response_format
    if form is None or isinstance(form, TextFormat):
        response_format = None
    else:
        response_format = form.model_dump(exclude_none=True, by_alias=True)
    options = {
        "tools": [tool.model_dump(exclude_none=True) for tool in asked.tools or ()] or None,
        "tool_choice": choice if asked.tools else None,
        "parallel_tool_calls": asked.parallel_tool_calls if asked.tools else None,
        "response_format": response_format,
        "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop or None,
        **{name: getattr(asked, name) for name in _PASSED},
    }
    # The last call of a client's tool loop may come without tools.
    continues = not asked.tools and any(m.role == "tool" for m in asked.messages)
    context = {
        "consult": "turn" if continues else None,
        "aggregator_temperature": asked.temperature,
        "aggregator_max_tokens": asked.max_completion_tokens or asked.max_tokens,
        "aggregator_options": given(options) or None,
    }
    return given(context)
