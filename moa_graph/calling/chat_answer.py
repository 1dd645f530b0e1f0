"""The answer of a mixture as a chat model gives it: usage, chunks, and one record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from moa_graph.calling.answer import REASONING_KEY
from moa_graph.calling.streams import is_answer
from moa_graph.models import Model, chat_models_in
from moa_graph.state import (
    AGGREGATOR_RECORD,
    Decision,
    MoAState,
    Proposal,
    total_usage,
)


class StreamedAnswer:
    """The aggregator's chunks as they come, and the record that ends them."""

    def __init__(self) -> None:
        self._state: MoAState | None = None
        self._id: str | None = None
        self._reasoning = False

    def take(self, mode: str, event: Any) -> ChatGenerationChunk | None:
        """Return the chunk of an event of the graph's stream; None if it has none."""
        if mode == "values":
            self._state = event
            return None
        message, metadata = event
        if not is_answer(metadata) or not isinstance(message, AIMessage):
            return None
        self._id = self._id or message.id
        self._reasoning |= REASONING_KEY in message.additional_kwargs
        # What a mixture inside tells of itself is part of this one's record.
        ours = ("moa", AGGREGATOR_RECORD)
        said = {k: v for k, v in message.response_metadata.items() if k not in ours}
        fields = {"id": self._id, "usage_metadata": None, "response_metadata": said}
        if isinstance(message, AIMessageChunk):
            chunk = message.model_copy(update={**fields, "chunk_position": None})
        else:
            chunk = AIMessageChunk(**{**message.model_dump(exclude={"type"}), **fields})
        return ChatGenerationChunk(message=chunk)

    def last(self, record: Callable[[AIMessage, MoAState], dict[str, Any]]) -> ChatGenerationChunk:
        """Return the chunk with the record.

        Args:
            record: Makes it of the answer and the run's last state.
        """
        assert self._state is not None  # a graph that ends without raising has a state
        answer = cast(AIMessage, self._state["messages"][-1])
        reasoning = answer.additional_kwargs.get(REASONING_KEY)
        told = self._reasoning or not reasoning
        chunk = AIMessageChunk(
            content="",
            id=self._id,
            additional_kwargs={} if told else {REASONING_KEY: reasoning},
            response_metadata={"moa": record(answer, self._state)},
            chunk_position="last",
        )
        return ChatGenerationChunk(message=chunk)


def with_usage(result: LLMResult) -> LLMResult:
    """Return the result, each message with the tokens of all models behind it."""
    for generations in result.generations:
        for generation in generations:
            message = getattr(generation, "message", None)
            if isinstance(message, AIMessage):
                message.usage_metadata = _total_usage(message)
    return result


def chunk_with_usage(chunk: AIMessageChunk) -> AIMessageChunk:
    """Return the chunk, with the tokens of all models behind the answer if it is the last one."""
    if "moa" not in chunk.response_metadata:
        return chunk
    return chunk.model_copy(update={"usage_metadata": _total_usage(chunk)})


def _total_usage(message: AIMessage) -> UsageMetadata | None:
    record = message.response_metadata.get("moa")
    if not record:
        return message.usage_metadata
    proposals: list[Proposal] = record["proposals"]
    steps: list[Decision] = record.get("decisions", [])
    usages = [p["usage"] for p in proposals] + [d["usage"] for d in steps]
    return total_usage([*usages, record["aggregator"]["usage"]])


def neutral(tool: Any) -> Any:
    """Return a tool as plain data, which every provider takes and a trace can show.

    A tool's `extras` are for one provider and would be lost, so such a tool stays as it is.
    """
    if isinstance(tool, dict) or getattr(tool, "extras", None):
        return tool
    return convert_to_openai_tool(tool)


def finished(state: MoAState, record: Callable[[AIMessage, MoAState], dict[str, Any]]) -> AIMessage:
    """Return the answer of a finished run, with its record.

    Args:
        state: The run's last state.
        record: Makes the record of the answer and that state.
    """
    message = cast(AIMessage, state["messages"][-1])
    metadata = {k: v for k, v in message.response_metadata.items() if k != AGGREGATOR_RECORD}
    told = {**metadata, "moa": record(message, state)}
    return message.model_copy(update={"usage_metadata": None, "response_metadata": told})


def bindable(writer: Model | None, title: str, what: str) -> BaseChatModel:
    """Return the chat model that can be given tools or a schema.

    Args:
        writer: Who writes the answer; None where it is chosen.
        title: What the last node is called.
        what: What it is given, for the error.

    Raises:
        ValueError: If there is none.
    """
    if writer is None:
        raise ValueError(
            f"{title} chooses its answer among the proposals and writes none, so it cannot be "
            f"given {what}: give create_moa a chat model as the aggregator."
        )
    model = next(chat_models_in(writer.get()), None)
    if model is None:
        raise ValueError(
            f"The aggregator {writer.name} is not a chat model that can be given {what}: give "
            "create_moa a chat model as the aggregator."
        )
    return model
