"""What is said to the models: the paper's prompt, and how references enter a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage

AGGREGATE_AND_SYNTHESIZE = (
    "You have been provided with a set of responses from various open-source models to the "
    "latest user query. Your task is to synthesize these responses into a single, high-quality "
    "response. It is crucial to critically evaluate the information provided in these "
    "responses, recognizing that some of it may be biased or incorrect. Your response should "
    "not simply replicate the given answers but should offer a refined, accurate, and "
    "comprehensive reply to the instruction. Ensure your response is well-structured, coherent, "
    "and adheres to the highest standards of accuracy and reliability.\n"
    "\n"
    "Responses from models:"
)
"""The Aggregate-and-Synthesize prompt, word for word (Table 1, arXiv 2406.04692).

The responses follow it as numbered lines, see `format_references`."""


def format_references(references: Sequence[str], prompt: str = AGGREGATE_AND_SYNTHESIZE) -> str:
    """The prompt, followed by the references as `1. …`, `2. …`, each on a line of its own.

    Args:
        references: The answers of the layer before, in the proposers' order.
        prompt: What to do with them.

    Returns:
        The text that `inject_references` puts into the system message, as the paper's
        reference code writes it (`utils.py::inject_references_to_messages`).
    """
    return prompt + "".join(f"\n{i}. {text}" for i, text in enumerate(references, start=1))


def inject_references(
    messages: Sequence[AnyMessage],
    references: Sequence[str],
    prompt: str = AGGREGATE_AND_SYNTHESIZE,
) -> list[AnyMessage]:
    """Show the references to a model, as the paper's reference code does.

    Args:
        messages: The conversation; it is not changed.
        references: The answers of the layer before. Without any, the conversation stays as it is.
        prompt: What to do with them.

    Returns:
        The conversation with the prompt and the references in its system message.
    """
    if not references:
        return list(messages)
    return extend_system_message(messages, format_references(references, prompt))


def extend_system_message(messages: Sequence[AnyMessage], text: str) -> list[AnyMessage]:
    """Append `text` to the leading system message, after a blank line, or put one first."""
    if not (messages and isinstance(messages[0], SystemMessage)):
        return [SystemMessage(text), *messages]
    first = messages[0]
    extended: str | list[str | dict[str, object]]
    if isinstance(first.content, str):
        extended = f"{first.content}\n\n{text}"
    else:
        extended = [*first.content, {"type": "text", "text": f"\n\n{text}"}]
    return [first.model_copy(update={"content": extended}), *messages[1:]]


def check_conversation(messages: Sequence[BaseMessage]) -> None:
    """Refuse a conversation that asks nothing, before any model is paid for.

    Raises:
        ValueError: If there are no messages, no human message, or the latest one is blank.
    """
    if not messages:
        raise ValueError(
            "`messages` is empty: give the question, for example "
            'moa.invoke({"messages": "What are 3 fun things to do in SF?"}).'
        )
    questions = [message for message in messages if isinstance(message, HumanMessage)]
    if not questions:
        raise ValueError(
            "`messages` has no human message: the models need a question to answer. "
            'Add one, for example {"role": "user", "content": "…"}.'
        )
    latest = questions[-1].content
    if not (latest.strip() if isinstance(latest, str) else latest):
        raise ValueError("The latest human message is blank: write the question in it.")
