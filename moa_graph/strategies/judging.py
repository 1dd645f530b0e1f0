"""A model that judges: asked once, once more if it talks nonsense, and then no longer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langgraph.errors import GraphBubbleUp

from moa_graph.completion import Cut
from moa_graph.models import Model, as_message, nested_graph
from moa_graph.prompts import fence_notice, fence_of, fenced
from moa_graph.references import Question
from moa_graph.state import Proposal, total_usage
from moa_graph.steps import Step
from moa_graph.streaming import without_message_stream

T = TypeVar("T")

_TRIES = 2
_QUOTED = 80  # characters of a verdict that is none


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """What a judge said, and what that took."""

    value: T | None
    """None if it gave no verdict."""
    error: str | None
    """Why there is none."""
    usage: UsageMetadata | None
    attempts: int


async def judge(
    step: Step,
    model: Model,
    messages: Sequence[AnyMessage],
    parse: Callable[[str], T | None],
    again: str,
    *,
    in_background: bool,
) -> Verdict[T]:
    """Ask a model for a verdict. Its tokens are no answer, so no stream of messages has them.

    Args:
        step: For which step of a run.
        model: The judge.
        messages: What it is asked.
        parse: From its reply to the verdict; None if the reply is none.
        again: What it is told then, before it is asked once more.
        in_background: Whether this is the event loop that serves synchronous runs.

    Returns:
        The verdict. It never raises for what the model does: an error is a verdict without a
        value, which says so.
    """
    asked = list(messages)
    usages: list[UsageMetadata | None] = []
    attempts = 0
    said = ""
    wait = step.side_wait
    for _ in range(_TRIES):
        runnable = model.cancellable() if in_background else await model.aget()
        config = without_message_stream(step.config)
        try:
            call = step.call(runnable, Question(asked), config, step.terms(model, runnable))
        except Exception as error:
            return Verdict(None, f"The judge was {error}", total_usage(usages), attempts)
        try:
            in_thread = in_background and nested_graph(runnable) is not None
            output = await wait.first_answer(partial(call.ainvoke, in_thread=in_thread))
            message = as_message(output)
        except GraphBubbleUp:
            raise
        except Exception as error:
            usages.append(call.tokens())
            said_why = str(error) if isinstance(error, Cut) else call.explain(error)
            reason = f"The judge {model.name} failed: {said_why}"
            return Verdict(None, reason, total_usage(usages), attempts + call.attempts)
        usages.append(call.tokens(message))
        attempts += call.attempts
        said = message.text
        if (value := parse(said)) is not None:
            return Verdict(value, None, total_usage(usages), attempts)
        asked = [*messages, AIMessage(said or "…"), HumanMessage(again)]
    short = " ".join(said.split())[:_QUOTED]
    error_text = f"The judge {model.name} gave no verdict in {_TRIES} attempts: {short!r}"
    return Verdict(None, error_text, total_usage(usages), attempts)


def case_for(question: str, proposals: Sequence[Proposal], task: str) -> list[AnyMessage]:
    """What a judge is shown: its task, the question, and the responses as untrusted material.

    Args:
        question: What the user asked.
        proposals: The responses, numbered from 1 in this order.
        task: What to decide, and how to say it.
    """
    texts = [p["content"] for p in proposals]
    fence = fence_of(question, *texts)
    blocks = [fenced(text, str(i), fence) for i, text in enumerate(texts, 1)]
    user = "\n".join([f"The user's query:\n{question}\n\nThe responses:", *blocks])
    return [SystemMessage(f"{task}\n\n{fence_notice(fence, len(texts))}"), HumanMessage(user)]


_NUMBERS = re.compile(r"\d+")
_DIGITS = 4  # more than any number of references has


def numbers_in(text: str, highest: int, count: int) -> list[int] | None:
    """That many different numbers from 1 to `highest`; None if the text has others, or more."""
    found = _NUMBERS.findall(text)
    if any(len(number) > _DIGITS for number in found):
        return None
    numbers = [int(n) for n in found]
    valid = list(dict.fromkeys(numbers))
    right = len(valid) == count and all(1 <= n <= highest for n in valid)
    return valid if right else None


def yes_or_no(text: str) -> bool | None:
    """What a judge says that begins with yes or no; None if it says neither."""
    match = re.match(r"\W*(yes|no)\b", text.strip(), re.IGNORECASE)
    return None if match is None else match[1].casefold() == "yes"
