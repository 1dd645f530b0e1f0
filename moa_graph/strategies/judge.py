"""Ask a judge model; retry once if its verdict cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling.conversation import place_for
from moa_graph.calling.references import Question
from moa_graph.models import Model
from moa_graph.models.text import utf8
from moa_graph.nodes.ask import ask
from moa_graph.nodes.step import Step
from moa_graph.prompts import Place, fence_notice, fence_of, fenced
from moa_graph.state import Proposal, total_usage

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
    case: Case,
    parse: Callable[[str], T | None],
    again: str,
) -> Verdict[T]:
    """Ask a model for a verdict; its tokens are not shown in streams of messages.

    Args:
        step: For which step of a run.
        model: The judge.
        case: What it is asked.
        parse: From its reply to the verdict; None if the reply is none.
        again: What it is told then, before it is asked once more.

    Returns:
        The verdict. It never raises for what the model does: an error is a verdict without a
        value, which says so.
    """
    usages: list[UsageMetadata | None] = []
    attempts = 0
    said = ""
    runnable = await model.here()
    question = CaseQuestion(case, place_for(runnable), step.reading.window_of(runnable))
    for _ in range(_TRIES):
        reply = await ask(step, model, lambda _: question)
        usages.append(reply.usage)
        attempts += reply.attempts
        if reply.answer is None:
            reason = f"The judge {model.name} failed: {reply.why_unusable}"
            return Verdict(None, reason, total_usage(usages), attempts)
        said = reply.answer.text
        if not reply.answer.filtered and (value := parse(said)) is not None:
            return Verdict(value, None, total_usage(usages), attempts)
        question.ask_again(said, again)
    short = " ".join(said.split())[:_QUOTED]
    error_text = f"The judge {model.name} gave no verdict in {_TRIES} attempts: {short!r}"
    return Verdict(None, error_text, total_usage(usages), attempts)


@dataclass(frozen=True)
class Case:
    """What a judge decides about.

    Args:
        question: What the user asked.
        proposals: The responses, numbered from 1 in this order.
        task: What to decide, and how to say it.
    """

    question: str
    proposals: Sequence[Proposal]
    task: str


class CaseQuestion(Question):
    """What a judge is asked: its task, the question, and the responses as untrusted material.

    Responses that do not fit are shortened, as references are.

    Args:
        case: What it decides about.
        place: Where its task stands.
        window: Tokens that it takes; None if unknown.
    """

    def __init__(self, case: Case, place: Place, window: int | None = None) -> None:
        self._case = case
        self._more: list[AnyMessage] = []
        super().__init__([], case.proposals, place=place, window=window)

    def ask_again(self, said: str, again: str) -> None:
        """Ask once more, after a reply that is not a verdict."""
        self._more = [AIMessage(said or "…"), HumanMessage(again)]

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        asked = utf8(self._case.question)
        fence = fence_of(asked, *texts)
        blocks = [fenced(text, str(i), fence) for i, text in enumerate(texts, 1)]
        user = "\n".join([f"The user's query:\n{asked}\n\nThe responses:", *blocks])
        task = f"{self._case.task}\n\n{fence_notice(fence, len(texts))}"
        if self._place == "human":
            return [HumanMessage(f"{task}\n\n{user}"), *self._more]
        return [SystemMessage(task), HumanMessage(user), *self._more]


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
    """Return what a judge says that begins with yes or no; None if it says neither."""
    match = re.match(r"\W*(yes|no)\b", text.strip(), re.IGNORECASE)
    return None if match is None else match[1].casefold() == "yes"
