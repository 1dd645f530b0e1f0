"""Convert a mixture's answer to a chat model's output: usage, chunks, and the run's record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
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


def with_ids_of_questions(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return copies of the messages; only human messages keep their ids, if these are unique.

    The graph merges messages with equal ids and gives new ids to the others. A `ChatMoA` inside
    the graph identifies an agent's turn by the id of its question.
    """
    ids = Counter(message.id for message in messages)
    return [
        m.model_copy()
        if isinstance(m, HumanMessage) and ids[m.id] == 1
        else m.model_copy(update={"id": None})
        for m in messages
    ]


class StreamedAnswer:
    """Chunks of the aggregator's answer, and a last chunk with the record."""

    def __init__(self) -> None:
        self._state: MoAState | None = None
        self._id: str | None = None
        self._reasoning = False

    def take(self, mode: str, event: Any) -> ChatGenerationChunk | None:
        """Convert an event of the graph's stream to a chunk; None if the event has no chunk."""
        if mode == "values":
            self._state = event
            return None
        message, metadata = event
        if not is_answer(metadata) or not isinstance(message, AIMessage):
            return None
        self._id = self._id or message.id
        self._reasoning |= REASONING_KEY in message.additional_kwargs
        # The record of a nested mixture is already part of this mixture's record.
        ours = ("moa", AGGREGATOR_RECORD)
        said = {k: v for k, v in message.response_metadata.items() if k not in ours}
        fields = {"id": self._id, "usage_metadata": None, "response_metadata": said}
        if isinstance(message, AIMessageChunk):
            chunk = message.model_copy(update={**fields, "chunk_position": None})
        else:
            chunk = AIMessageChunk(**{**message.model_dump(exclude={"type"}), **fields})
        return ChatGenerationChunk(message=chunk)

    def last(self, record: Callable[[AIMessage, MoAState], dict[str, Any]]) -> ChatGenerationChunk:
        """Return the last chunk, which contains the record.

        Args:
            record: Function that makes the record from the answer and the run's last state.
        """
        assert self._state is not None  # a graph that ends without an error has a state
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
    """Set the usage of each message to the tokens of all models behind it."""
    for generations in result.generations:
        for generation in generations:
            message = getattr(generation, "message", None)
            if isinstance(message, AIMessage):
                message.usage_metadata = _total_usage(message)
    return result


def chunk_with_usage(chunk: AIMessageChunk) -> AIMessageChunk:
    """Return the chunk; if it is the last one, with the tokens of all models behind the answer."""
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
    """Convert a tool to plain data that every provider accepts and a trace can show.

    A tool with `extras` is not changed: they are for one provider and would be lost.
    """
    if isinstance(tool, dict) or getattr(tool, "extras", None):
        return tool
    return convert_to_openai_tool(tool)


def finished(state: MoAState, record: Callable[[AIMessage, MoAState], dict[str, Any]]) -> AIMessage:
    """Return the answer of a finished run, with its record.

    Args:
        state: Last state of the run.
        record: Function that makes the record from the answer and that state.
    """
    message = cast(AIMessage, state["messages"][-1])
    metadata = {k: v for k, v in message.response_metadata.items() if k != AGGREGATOR_RECORD}
    told = {**metadata, "moa": record(message, state)}
    return message.model_copy(update={"usage_metadata": None, "response_metadata": told})


def bindable(writer: Model | None, title: str, what: str) -> BaseChatModel:
    """Return the chat model to which tools or a schema can be bound.

    Args:
        writer: Model that writes the answer; None if the answer is selected from the proposals.
        title: Name of the last node.
        what: Object to bind, for the error message.

    Raises:
        ValueError: If there is no such chat model.
    """
    if writer is None:
        raise ValueError(
            f"{title} selects one of the proposals and calls no model for the answer, so "
            f"{what} cannot be bound to it. Pass create_moa a chat model as the aggregator."
        )
    model = next(chat_models_in(writer.get()), None)
    if model is None:
        raise ValueError(
            f"The aggregator {writer.name} is not a chat model that can be given {what}: give "
            "create_moa a chat model as the aggregator."
        )
    return model
